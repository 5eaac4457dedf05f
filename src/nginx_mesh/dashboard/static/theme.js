// Runs before the page is drawn for the first time: applies the colour scheme that was chosen here in place of the
// system's.
(() => {
  "use strict";
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* Without storage the page has the system's scheme. */ }
})();
