// SPDX-License-Identifier: Apache-2.0
// What a window of this width cuts off or covers: a sentence each, as JSON in <pre id="geometry">.
// Everything that opens is opened first.
function found() {
  const wrong = [];
  const slack = 1.5;  // pixels that rounding makes
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const page = document.documentElement;
  if (page.scrollWidth > page.clientWidth + slack) {
    wrong.push(`the page is ${page.scrollWidth} pixels wide in a window of ${page.clientWidth}`);
  }
  document.querySelectorAll("table").forEach((table, number) => {
    const box = table.closest(".box");
    if (!box) {
      wrong.push(`table ${number} is in no box`);
      return;
    }
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    if (table.offsetWidth > box.clientWidth + slack && !scrolls) {
      wrong.push(`table ${number} is cut off`);
    }
    const inner = table.parentElement.closest("table");  // what it is in may scroll
    if (!inner && box.getBoundingClientRect().right > page.clientWidth + slack) {
      wrong.push(`the box of table ${number} leaves the window`);
    }
    if (!inner && table.offsetWidth > box.clientWidth + slack && scrolls) {
      wrong.push(...scrolled(table, box, number));
    }
    table.querySelectorAll("td, th").forEach((cell) => {
      if (cell.closest("table") === table && !cell.querySelector(".box") &&
          cell.scrollWidth > cell.clientWidth + slack) {
        wrong.push(`table ${number}: "${cell.textContent.trim()}" leaves its cell`);
      }
    });
  });
  document.querySelectorAll(".tile, dl").forEach((one) => {
    if (one.scrollWidth > one.clientWidth + slack) {
      wrong.push(`"${one.textContent.trim().slice(0, 40)}" leaves its tile`);
    }
  });
  document.querySelectorAll("figure svg").forEach((svg) => {
    const texts = [...svg.querySelectorAll("text")].filter((text) => text.textContent.trim());
    const boxes = texts.map(corners);
    boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, j) => {
      if (!apart(a, b)) {
        const names = [texts[i], texts[i + 1 + j]].map((text) => text.textContent.trim());
        wrong.push(`the texts "${names[0]}" and "${names[1]}" cover each other`);
      }
    }));
  });
  return wrong;
}

// A table that is wider than its box: names leave room for figures, and stay while those scroll.
function scrolled(table, box, number) {
  const wrong = [];
  const cell = table.querySelector("tbody td");
  const share = cell.offsetWidth / box.clientWidth;
  if (share > 0.6) {
    wrong.push(`names take ${Math.round(100 * share)}% of the width that table ${number} has`);
  }
  box.scrollLeft = box.scrollWidth;
  const [outer, first] = [box, cell].map((one) => one.getBoundingClientRect());
  const last = table.rows[0].lastElementChild.getBoundingClientRect();
  if (last.right > outer.right + 1.5) {
    wrong.push(`the last column of table ${number} cannot be reached`);
  }
  if (first.left < outer.left - 1.5) {
    wrong.push(`names of table ${number} leave while it scrolls`);
  }
  box.scrollLeft = 0;
  return wrong;
}

// The corners of a text on the screen, turned as it is; its box without what is empty in it.
function corners(text) {
  const box = text.getBBox();
  const place = text.getScreenCTM();
  const [top, bottom] = [box.y + 0.2 * box.height, box.y + 0.9 * box.height];
  return [[box.x, top], [box.x + box.width, top], [box.x + box.width, bottom], [box.x, bottom]]
    .map(([x, y]) => new DOMPoint(x, y).matrixTransform(place));
}

// Whether two rectangles, however turned, are apart: some side of one separates them.
function apart(a, b) {
  return [a, b].some((box) => [box[1], box[3]].some((other) => {
    const axis = [other.x - box[0].x, other.y - box[0].y];
    const [first, second] = [a, b].map((all) => all.map((p) => p.x * axis[0] + p.y * axis[1]));
    return Math.max(...first) <= Math.min(...second) || Math.max(...second) <= Math.min(...first);
  }));
}

window.addEventListener("load", () => {
  const into = parent.document.getElementById("geometry");
  into.textContent = JSON.stringify({ width: window.innerWidth, wrong: found() });
});
