// The chosen appearance, before anything is drawn.
const chosen = localStorage.getItem("pocketclip-theme");
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
