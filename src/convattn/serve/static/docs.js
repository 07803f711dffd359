// Shows the server's OpenAPI document; everything comes from the server itself.

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const api = await (await fetch("/openapi.json")).json();
const resolve = (schema = {}) => (schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

document.getElementById("curl").textContent = `curl -F image=@photo.jpg -F scale=2 -OJ ${location.origin}/v1/upscale`;
document.getElementById("python").textContent = `import httpx

with open("photo.jpg", "rb") as image:
    answer = httpx.post(
        "${location.origin}/v1/upscale",
        params={"scale": 2, "format": "png"},
        content=image,
        timeout=None,
    )
answer.raise_for_status()
open("photo_x2.png", "wb").write(answer.content)`;

for (const [path, operations] of Object.entries(api.paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    document.getElementById("operations").append(show(method, path, operation));
  }
}

function show(method, path, operation) {
  const inside = make("div", { className: "inside" }, ...formatted(operation.description));
  const parameters = (operation.parameters ?? []).map((p) => [p.name, typeOf(p.schema), p.description ?? p.schema.description ?? ""]);
  if (parameters.length) inside.append(table("Parameters", parameters));
  const bodies = Object.keys(operation.requestBody?.content ?? {});
  if (bodies.length) inside.append(table("Body", bodies.map((type) => [type, fieldsOf(operation.requestBody.content[type].schema)])));
  inside.append(table("Answers", Object.entries(operation.responses).map(([status, answer]) => [status, answer.description])));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const fields = status < 300 ? propertiesOf(answer.content?.["application/json"]?.schema) : [];
    if (fields.length) inside.append(table(`JSON of ${status}`, fields));
  }
  return make("details", { className: "operation", open: path === "/v1/upscale" },
    make("summary", {}, make("b", { className: "method", textContent: method.toUpperCase() }),
      make("b", { className: "path", textContent: path }), make("span", { textContent: operation.summary })), inside);
}

function formatted(description = "") {
  return description.split(/\n\n/).filter(Boolean).map((paragraph) => make("p", {}, ...inline(paragraph)));
}

function inline(words) {
  return words.split("`").map((part, index) => (index % 2 ? make("code", { textContent: part }) : part));
}

function table(caption, rows) {
  const cells = (row) => row.map((cell, index) => make(index ? "td" : "th", index ? {} : { scope: "row" }, ...inline(cell)));
  return make("table", {}, make("caption", { textContent: caption }), make("tbody", {}, ...rows.map((row) => make("tr", {}, ...cells(row)))));
}

function typeOf(schema) {
  const { anyOf, allOf, type, enum: values, minimum, maximum, items } = resolve(schema);
  if (anyOf) return anyOf.map(typeOf).filter((name) => name !== "null").join(" or ");
  if (allOf) return allOf.map(typeOf).join(" and ");
  if (values) return values.join(", ");
  if (type === "array") return `list of ${typeOf(items)}`;
  return minimum !== undefined && maximum !== undefined ? `${type}, ${minimum} to ${maximum}` : type ?? "";
}

function fieldsOf(schema) {
  return schema.properties ? `fields ${Object.keys(schema.properties).join(", ")}` : "the image itself";
}

function propertiesOf(schema) {
  const { type, items, properties = {} } = resolve(schema);
  if (type === "array") return propertiesOf(items);
  return Object.entries(properties).map(([name, field]) => [name, typeOf(field), resolve(field).description ?? field.description ?? ""]);
}
