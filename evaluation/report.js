"use strict";

// Sliders: pointer anywhere on the picture (mouse, touch, pen), arrow keys on the range input.
for (const stage of document.querySelectorAll(".compare .stage")) {
  const range = stage.querySelector("input");
  if (!range) continue;
  const shown = (side) => stage.querySelector("img." + side).dataset.name;
  const show = () => {
    stage.style.setProperty("--split", range.value + "%");
    range.setAttribute("aria-valuetext",
      `${range.value}% ${shown("left")}, ${100 - range.value}% ${shown("right")}`);
  };
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    range.value = 100 * (event.clientX - box.left) / box.width;
    show();
  };
  let start = null;  // where a finger came down, until it is clear which way it goes
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    stage.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true, focusVisible: false });
    event.preventDefault();
    // A finger may be about to scroll the page: it moves the split only by a swipe or a tap.
    if (event.pointerType === "mouse") follow(event);
    else start = event;
  });
  stage.addEventListener("click", follow);
  stage.addEventListener("pointermove", (event) => {
    if (!stage.hasPointerCapture(event.pointerId)) return;
    if (start) {
      const across = Math.abs(event.clientX - start.clientX);
      if (across <= Math.abs(event.clientY - start.clientY)) return;
      start = null;
    }
    follow(event);
  });
  range.addEventListener("input", show);
  show();

  // Which two pictures: choosing the one on the other side swaps them; their error maps are shown.
  const selects = [...stage.parentElement.querySelectorAll("select[data-side]")];
  for (const select of selects) {
    select.addEventListener("change", () => {
      const side = select.dataset.side, other = side === "left" ? "right" : "left";
      const before = shown(side), swap = shown(other) === select.value;
      const names = { [side]: select.value, [other]: swap ? before : shown(other) };
      for (const image of stage.querySelectorAll("img")) {
        image.classList.toggle("left", image.dataset.name === names.left);
        image.classList.toggle("right", image.dataset.name === names.right);
      }
      for (const each of selects) {
        each.value = names[each.dataset.side];
        stage.querySelector(".tag-" + each.dataset.side).textContent = each.value;
      }
      for (const map of stage.closest(".pictures").querySelectorAll("[data-error]")) {
        map.hidden = !Object.values(names).includes(map.dataset.error);
      }
      show();
    });
  }
}

// The per-view table: headings sort, the cards below follow; n/a stays at the end.
const table = document.getElementById("per-view");
if (table) {
  const headings = [...table.tHead.rows[0].cells];
  const order = document.getElementById("order"), cards = document.getElementById("cards");
  const sort = (column, direction) => {
    const value = (row) => row.cells[column].dataset.value.replace("inf", "Infinity");
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].sort((a, b) =>
      (value(a) === "") - (value(b) === "") || sign * (value(a) - value(b)));
    for (const row of rows) {
      table.tBodies[0].append(row);
      const card = document.getElementById(row.dataset.view);
      if (card?.parentElement === cards) cards.append(card);
    }
    for (const [i, heading] of headings.entries()) {
      if (i === column) heading.setAttribute("aria-sort", direction);
      else heading.removeAttribute("aria-sort");
    }
    const first = headings[column].firstElementChild.dataset.first;
    order.value = direction !== first ? "reversed" : column ? column - 1 : "";
  };
  for (const [i, heading] of headings.entries()) {
    const button = heading.firstElementChild, first = button.dataset.first;
    button.addEventListener("click", () => {
      const second = first === "ascending" ? "descending" : "ascending";
      sort(i, heading.getAttribute("aria-sort") === first ? second : first);
    });
  }
  order.addEventListener("change", () => {
    const column = order.value === "" ? 0 : Number(order.value) + 1;
    sort(column, headings[column].firstElementChild.dataset.first);
  });
}
