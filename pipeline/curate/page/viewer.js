// @ts-check
// The dialog with one enlarged image and its details.

import { ask } from "./server.js";

export class Viewer {
  /**
   * @param {any} dialog
   * @param {any} picture the image in it
   * @param {any} list the list of details
   * @param {(id: number, about: any) => Record<string, string>} rows texts by name; empty ones are left out
   */
  constructor(dialog, picture, list, rows) {
    Object.assign(this, { dialog, picture, list, rows, id: -1, about: null });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  get isOpen() {
    return this.dialog.open;
  }

  close() {
    this.dialog.close();
  }

  async show(id) {
    if (!this.isOpen) this.dialog.showModal();
    if (this.id !== id) await this.load(id);
    if (this.about) this.describe();
  }

  /** Show nothing until the image is loaded, so that no decision is about another one. */
  async load(id) {
    URL.revokeObjectURL(this.picture.src);
    this.picture.removeAttribute("src");
    this.list.replaceChildren();
    this.about = null;
    this.id = id;
    try {
      const [picture, details] = await Promise.all([ask(`picture/${id}`).catch(() => null), ask(`details/${id}`)]);
      const blob = await picture?.blob(), about = await details.json();
      if (this.id !== id) return; // another image was chosen meanwhile
      if (blob) this.picture.src = URL.createObjectURL(blob);
      this.about = about;
    } catch (error) {
      if (this.id === id) this.id = -1; // load it again at the next `show`
      throw error;
    }
  }

  describe() {
    const rows = Object.entries(this.rows(this.id, this.about)).filter(([, text]) => text);
    this.list.replaceChildren(...rows.flatMap(([name, text]) => {
      const term = document.createElement("dt"), value = document.createElement("dd");
      term.textContent = name;
      value.textContent = text;
      return [term, value];
    }));
  }
}
