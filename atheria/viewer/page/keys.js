// Every control by keyboard. Keys are left to what has the focus where that needs them itself.

const NAMES = { " ": "space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

// bindings: [keys, what it does in words, what it does]
export function listenToKeys(bindings) {
  const actions = new Map(bindings.flatMap(([keys, , action]) => keys.map((key) => [key, action])));
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (isNeeded(event.key, event.target)) return;
    const action = actions.get(event.key);
    if (!action || (event.shiftKey && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action(event);
  });
}

function isNeeded(key, target) {
  if (target.matches("select, input:not([type=range]):not([type=checkbox])")) return key !== "Escape";
  if (target.matches("input[type=range]")) return key.startsWith("Arrow");
  if (target.matches("button, input[type=checkbox]")) return key === " " || key === "Enter";
  return false;
}

export function describe(bindings, list) {
  for (const [keys, text] of bindings) {
    const term = document.createElement("dt");
    term.textContent = keys.map((key) => NAMES[key] ?? key).join(" ");
    const description = document.createElement("dd");
    description.textContent = text;
    list.append(term, description);
  }
}
