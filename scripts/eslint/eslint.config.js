// How the JavaScript of the dashboard is linted.
import js from "@eslint/js";
import noUnsanitized from "eslint-plugin-no-unsanitized";
import globals from "globals";

// Names that a browser defines and that are easily used by mistake for a variable that was forgotten.
const CONFUSING = ["close", "closed", "event", "external", "find", "focus", "frames", "history", "length", "location",
  "name", "open", "opener", "origin", "parent", "print", "scroll", "self", "status", "stop", "toolbar", "top"];

export default [
  js.configs.recommended,
  noUnsanitized.configs.recommended,
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    languageOptions: { ecmaVersion: 2024, sourceType: "module", globals: globals.browser },
    rules: {
      "array-callback-return": "error",
      "consistent-return": "error",
      "default-case-last": "error",
      "dot-notation": "error",
      "eqeqeq": "error",
      "max-len": ["error", { code: 120 }],
      "no-alert": "error",
      "no-caller": "error",
      "no-console": "error",
      "no-eval": "error",
      "no-extend-native": "error",
      "no-implicit-coercion": "error",
      "no-implicit-globals": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-param-reassign": "error",
      "no-restricted-globals": ["error", ...CONFUSING],
      "no-restricted-properties": ["error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML", "setHTMLUnsafe"].map((property) => (
          { property, message: "Text is only ever set as text: see dom.js." })),
        { object: "document", property: "write", message: "Text is only ever set as text: see dom.js." },
      ],
      "no-self-compare": "error",
      "no-sequences": "error",
      "no-shadow": "error",
      "no-template-curly-in-string": "error",
      "no-throw-literal": "error",
      "no-undef-init": "error",
      "no-unused-expressions": "error",
      "no-unused-vars": ["error", { args: "all", caughtErrors: "all" }],
      "no-use-before-define": ["error", { functions: false, variables: false }],
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-promise-reject-errors": "error",
      "radix": "error",
      "strict": ["error", "safe"],
    },
  },
  {
    // Loaded before the page is drawn, which a module would not be.
    files: ["**/theme.js"],
    languageOptions: { sourceType: "script" },
  },
];
