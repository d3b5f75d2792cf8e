// What the page's tests ask the page.

window.checks = {
  focusedBox() {
    const { left, top, bottom } = document.activeElement.getBoundingClientRect();
    return { left, top, bottom };
  },

  shownPicture() {
    const picture = document.querySelector("#shown img.sharp");
    const { width, height } = picture.getBoundingClientRect();
    return { width, height, aspect: picture.naturalWidth / picture.naturalHeight };
  },

  tileBoxes() {
    return [...document.querySelectorAll(".tile")].map((tile) => {
      const { left, top, right } = tile.getBoundingClientRect();
      return [left, top, right];
    });
  },

  carry(how, data, name) {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const carried = new DataTransfer();
    carried.items.add(new File([bytes], name, { type: "image/png" }));
    if (how === "paste") {
      dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, cancelable: true }));
      return;
    }
    for (const kind of ["dragenter", "dragover", "drop"]) {
      document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: carried, bubbles: true, cancelable: true }));
    }
  },

  slide(id, value) {
    const slider = document.getElementById(id);
    slider.value = value;
    slider.dispatchEvent(new Event("input"));
  },

  // Controls that a finger misses.
  small() {
    const seen = (one) => one.offsetParent && !one.closest(".tile, label");
    return [...document.querySelectorAll("button, select, input")].filter(seen)
      .filter((one) => Math.min(one.offsetHeight, one.offsetWidth) < 24).map((one) => one.id);
  },

  // Controls, pictures and groups that a screen reader has no name for.
  nameless() {
    const hidden = (one) => one.hidden || one.closest("[hidden], [aria-hidden=true]") || one.closest("dialog:not([open])");
    const named = (one) => one.getAttribute("aria-label") || one.labels?.[0]?.textContent.trim() ||
      one.querySelector(":scope > legend")?.textContent || (one.tagName === "IMG" && one.hasAttribute("alt")) ||
      one.textContent.trim();
    return [...document.querySelectorAll("button, a[href], input, select, dialog, img, video, fieldset, ul")]
      .filter((one) => !hidden(one) && !named(one)).map((one) => one.outerHTML.slice(0, 120));
  },

  // Texts with a contrast below 4.5 : 1 (WCAG 2.2, 1.4.3).
  faint() {
    const parts = (text) => text.match(/[\d.]+/g).map(Number);
    const line = (value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const light = ([r, g, b]) => 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b);
    const paper = (one) => {
      for (let at = one; at; at = at.parentElement) {
        const found = parts(getComputedStyle(at).backgroundColor);
        if ((found[3] ?? 1) > 0.8) return light(found);
      }
      return 1;
    };
    const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const isSeen = (one) => one.checkVisibility() && !one.closest(".tile, .sprite, .stage, .skip") && !one.disabled;
    return [...document.querySelectorAll("body *")].filter((one) => isSeen(one) && hasText(one)).filter((one) => {
      const [low, high] = [light(parts(getComputedStyle(one).color)), paper(one)].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05) < 4.5;
    }).map((one) => one.outerHTML.slice(0, 120));
  },

  named() {
    return [...document.querySelectorAll("[aria-controls], label[for]")]
      .map((one) => one.getAttribute("aria-controls") ?? one.htmlFor);
  },

  // What has the focus, and whether that can be seen.
  focus() {
    const one = document.activeElement;
    const around = getComputedStyle(one.closest(".tile, .field") ?? one);
    const isSeen = around.outlineStyle !== "none" || around.boxShadow !== "none" ||
      getComputedStyle(one).outlineStyle !== "none";
    return [isSeen, one.id || one.className || one.tagName];
  },
};
