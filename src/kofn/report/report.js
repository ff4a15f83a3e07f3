"use strict";
// The page is whole without this script; it adds the slider, the search and a shorter first view of a long list.
document.documentElement.classList.add("js");
addEventListener("DOMContentLoaded", () => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const list = document.querySelector(".picks");
  const more = document.querySelector(".more");
  const openAll = () => {
    list?.classList.add("all");
    if (more) more.hidden = true;
  };
  if (more) {
    more.hidden = false;
    more.addEventListener("click", () => {
      openAll();
      const next = list.querySelector(".late");
      next.tabIndex = -1;
      next.focus({ preventScroll: true });
    });
  }
  const jump = () => {
    const target = /^#[pg]\d+$/.test(location.hash) ? document.getElementById(location.hash.slice(1)) : null;
    if (target?.classList.contains("late")) {
      openAll();
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", jump);
  jump();

  const tools = document.querySelector(".tools");
  if (tools) {
    tools.hidden = false;
    const field = tools.querySelector("input");
    const found = tools.querySelector(".found");
    const whole = found.textContent;
    const rows = all(".pick", list).map((row) => [row, row.textContent.toLowerCase()]);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (wanted.length) openAll();
      let count = 0;
      for (const [row, text] of rows) {
        const hit = wanted.every((word) => text.includes(word));
        row.classList.toggle("miss", !hit);
        count += hit;
      }
      found.textContent = wanted.length ? `${count} of ${whole}` : whole;
    });
  }

  const chooser = document.querySelector(".chooser");
  if (chooser) {
    chooser.hidden = false;
    const choice = chooser.querySelector("select");
    const marks = all(".map [data-group]");
    const show = () => {
      for (const mark of marks) mark.classList.toggle("faint", choice.value !== "" && mark.dataset.group !== choice.value);
    };
    choice.addEventListener("change", show);
    show();
  }

  const scrub = document.querySelector(".scrub");
  if (scrub) {
    scrub.hidden = false;
    const split = (name) => (scrub.dataset[name] ?? "").split(" ").filter(Boolean).map(Number);
    const ks = split("k");
    const share = split("share");
    const far = split("far");
    const last = Number(scrub.dataset.last);
    const input = scrub.querySelector("input");
    const cursors = all(".curve .cursor");
    const marks = all(".map [data-rank]").map((mark) => [mark, Number(mark.dataset.rank)]);
    const show = () => {
      const at = Number(input.value);
      const k = ks[at];
      let words = `${(100 * share[at]).toFixed(1)}% ${scrub.dataset.what}`;
      if (far.length) words += `, mean distance ${far[at].toPrecision(3)}`;
      scrub.querySelector("output").textContent = k.toLocaleString("en");
      scrub.querySelector("strong").textContent = words;
      input.setAttribute("aria-valuetext", `${k} picks, ${words}`);
      for (const cursor of cursors) {
        cursor.hidden = k === last;
        cursor.style.left = `${(100 * (k - 1)) / Math.max(last - 1, 1)}%`;
      }
      for (const [mark, rank] of marks) mark.classList.toggle("later", rank > k);
    };
    input.addEventListener("input", show);
    show();
  }
});
