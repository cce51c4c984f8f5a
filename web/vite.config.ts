import { defineConfig } from "vite";

// One script and one style sheet: the page needs all of both at once, and every file is a round trip.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
  },
});
