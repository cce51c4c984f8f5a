import { readFileSync } from "node:fs";
import { defineConfig } from "vite";

// The page that shows the API's document, at /docs, beside the page.js in public/docs.
const swaggerUi = {
  name: "swagger-ui",
  generateBundle() {
    for (const name of ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt"]) {
      const source = readFileSync(`node_modules/swagger-ui-dist/${name}`);
      this.emitFile({ type: "asset", fileName: `docs/${name}`, source });
    }
  },
};

// One script and one style sheet: the page needs all of both at once, and every file is a round trip.
export default defineConfig({
  plugins: [swaggerUi],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
  },
});
