// The entry point: renders the dashboard into the page.
import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import { App } from "./app";
import "./style/colours.css";
import "./style/base.css";
import "./style/layout.css";
import "./style/parts.css";
import "./style/views.css";

const root = document.getElementById("app");
if (root) render(<App />, root);
