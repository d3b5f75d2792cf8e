// The interface's description, openapi.json, for people.

import { byId, element } from "./elements.js";

// `words` in backticks are names.
const prose = (text) => element("p", {}, ...text.split("`").map((part, at) => (at % 2 ? element("code", { textContent: part }) : part)));

const description = await (await fetch("api/openapi.json")).json();
byId("about").replaceChildren(...description.info.description.split("\n\n").map(prose));

const kindOf = (schema) =>
  schema.enum?.join(" | ") ?? schema.const ?? schema.anyOf?.map(kindOf).filter((kind) => kind !== "null").join(" | ") ??
  (schema.type === "array" ? `${kindOf(schema.items)}, several` : schema.type ?? "");

function row({ name, schema, description: text }) {
  const cells = [kindOf(schema), text ?? schema.description ?? ""];
  return element("tr", {}, element("th", { scope: "row" }, element("code", { textContent: name })), ...cells.map((cell) => element("td", { textContent: cell })));
}

const sections = Object.entries(description.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => {
  const code = element("code", {}, element("b", { textContent: method.toUpperCase() }), ` ${path}`);
  const text = [route.summary, route.description].filter(Boolean).map(prose);
  const rows = (route.parameters ?? []).map(row);
  return element("section", {}, element("h2", {}, code), ...text, ...(rows.length ? [element("table", {}, element("tbody", {}, ...rows))] : []));
}));
byId("paths").replaceChildren(...sections);
