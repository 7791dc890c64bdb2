// A table that is too wide for its place shows each row as a card, so that no column is lost.
function fit(wrapper) {
  const table = wrapper.querySelector("table");
  if (!table) return;
  table.classList.remove("stacked");
  if (wrapper.scrollWidth <= wrapper.clientWidth + 1) return;
  const heads = [...table.querySelectorAll("thead th")].map((head) => head.innerText.trim());
  for (const row of table.querySelectorAll("tbody tr"))
    [...row.children].forEach((cell, i) => (cell.dataset.label = heads[i] || ""));
  table.classList.add("stacked");
}

function fitAll() {
  document.querySelectorAll(".table-wrapper").forEach(fit);
}

window.addEventListener("DOMContentLoaded", fitAll);
window.addEventListener("load", fitAll);
window.addEventListener("resize", fitAll);
