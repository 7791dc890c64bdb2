// A table that is too wide for its place shows each row as a card, so that no column is lost.
function fit(table) {
  table.classList.remove("stacked");
  const right = (element) => element.getBoundingClientRect().right;
  if (right(table) <= right(table.parentElement) + 1) return;
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.innerText.trim());
  for (const row of table.querySelectorAll("tbody tr"))
    [...row.children].forEach((cell, i) => (cell.dataset.label = heads[i] || ""));
  table.classList.add("stacked");
}

function fitAll() {
  document.querySelectorAll("article table").forEach(fit);
}

window.addEventListener("DOMContentLoaded", fitAll);
window.addEventListener("load", fitAll);
window.addEventListener("resize", fitAll);
