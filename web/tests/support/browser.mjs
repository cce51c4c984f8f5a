// A real browser. A page that a test opens must not log errors, violate the Content-Security-Policy, or send requests to
// another origin.
import assert from "node:assert/strict";
import { existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = require.resolve("axe-core/axe.min.js");
const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
const SCREENSHOTS = new URL("../../../target/screenshots/", import.meta.url).pathname;

export async function launch() {
  mkdirSync(SCREENSHOTS, { recursive: true });
  // The sandbox needs permissions that a container, or root, does not have.
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
}

export class Visitor {
  problems = [];
  /** While true, requests may fail, because the test interrupts a connection. */
  isOutage = false;

  static async open(browser, base, { token, ...options } = {}) {
    const visitor = new Visitor();
    const context = await browser.newContext({
      baseURL: base,
      viewport: { width: 1280, height: 900 },
      timezoneId: "Europe/Berlin",
      locale: "en-GB",
      ...options,
    });
    context.setDefaultTimeout(20_000);
    if (token)
      await context.addInitScript((token) => {
        if (sessionStorage.getItem("signed-in") === null) {
          sessionStorage.setItem("tributary.token", token);
          sessionStorage.setItem("signed-in", "once");
        }
      }, token);
    const page = await context.newPage();
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type()))
        visitor.#report(`${message.text()} ${message.location().url}`);
    });
    page.on("pageerror", (error) => visitor.#report(String(error)));
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (!["data:", "blob:"].includes(url.protocol) && url.origin !== base)
        visitor.#report(`request to ${url}`);
    });
    await page.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) =>
        console.error(`CSP: ${event.violatedDirective}`),
      );
    });
    Object.assign(visitor, { page, context });
    return visitor;
  }

  #report(text) {
    if (!(this.isOutage && text.startsWith("Failed to load resource"))) this.problems.push(text);
  }

  /** Serious findings of axe-core, one string each. */
  async accessibilityFindings() {
    // Injected by the debugging protocol, to which the page's Content-Security-Policy does not apply.
    const { readFileSync } = await import("node:fs");
    await this.page.evaluate(readFileSync(AXE, "utf8"));
    const { violations } = await this.page.evaluate(() => window.axe.run(document));
    return violations
      .filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
  }

  async screenshot(name) {
    await this.page.screenshot({ path: `${SCREENSHOTS}${name}.png`, fullPage: false });
  }

  async close() {
    await this.context.close();
    assert.deepEqual(this.problems, [], "no console errors, policy violations or requests to other origins");
  }
}
