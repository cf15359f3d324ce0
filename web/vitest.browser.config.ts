// SPDX-License-Identifier: Apache-2.0
import { defineConfig } from "vitest/config";

// Tests in a real browser, one after the other: they share its page.
export default defineConfig({
  test: {
    include: [process.env.SPEED ? "tests/browser/speed.ts" : "tests/browser/page.test.ts"],
    testTimeout: process.env.SPEED ? 600_000 : 150_000,
    hookTimeout: 300_000,
    bail: 0,
  },
});
