// @ts-check
// The page of a run that translates images: an image goes to the server, its translations come back.

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);

const facts = await (await fetch("translator.json")).json();
document.title = at("title").textContent = facts.title;
at("about").textContent = facts.about;

/** @param {string} text Empty: there is no trouble. */
function tell(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
}

/**
 * @param {string} name
 * @param {Record<string, string>} images
 */
function add(name, images) {
  const row = document.createElement("div");
  row.className = "result";
  for (const [key, words] of Object.entries(facts.captions)) {
    const figure = document.createElement("figure"), image = document.createElement("img");
    const caption = document.createElement("figcaption");
    image.src = images[key];
    image.alt = `${words}: ${name}`;
    caption.textContent = words;
    caption.className = "soft";
    figure.append(image, caption);
    row.append(figure);
  }
  at("results").prepend(row);
  document.body.dataset.translated = String(Number(document.body.dataset.translated || 0) + 1);
}

/** @param {File} file */
async function translate(file) {
  if (file.size > facts.most_bytes) throw new Error(`larger than ${facts.most_bytes / 2 ** 20} MiB`);
  const headers = { "Content-Type": "application/octet-stream" };
  const answer = await fetch("translate", { method: "POST", body: file, headers });
  if (!answer.ok) throw new Error(await answer.text());
  add(file.name, await answer.json());
}

/** @param {Iterable<File>} files */
async function translateAll(files) {
  tell("");
  const failures = [];
  for (const file of files) {
    at("state").textContent = `translating ${file.name} …`;
    try {
      await translate(file);
    } catch (error) {
      const said = error instanceof Error ? error.message : String(error);
      const reason = said === "Failed to fetch" ? "the server does not respond" : said;
      failures.push(`${file.name}: ${reason}`);
    }
  }
  at("state").textContent = "";
  tell(failures.join("; "));
}

at("file").addEventListener("change", () => {
  translateAll([...at("file").files]).then(() => { at("file").value = ""; });
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) at("drop").classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  translateAll([...(event.dataTransfer?.files ?? [])]);
});
addEventListener("paste", (event) => {
  translateAll([...(event.clipboardData?.files ?? [])]);
});
document.body.dataset.ready = "true";
export {};
