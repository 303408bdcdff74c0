// The picture that was pressed is shown in the page's one dialog; Esc or another press closes it.
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    dialog.replaceChildren(button.querySelector("img").cloneNode());
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());

// A box says that it scrolls while what is in it is wider.
const boxes = document.querySelectorAll(".scroll");
const measure = () => {
  for (const box of boxes) box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", measure);
addEventListener("toggle", measure, true);
measure();

// The contents mark the section that is read; on a narrow screen they are a bar with its name.
const contents = document.querySelector("nav details");
const place = contents.querySelector("summary span");
const links = [...document.querySelectorAll("nav a")];
const sections = links.map((link) => document.querySelector(link.hash));
const follow = () => {
  const past = sections.findLastIndex((s) => s.getBoundingClientRect().top < innerHeight / 3);
  for (const link of links) link.removeAttribute("aria-current");
  links[Math.max(past, 0)].setAttribute("aria-current", "true");
  place.textContent = links[Math.max(past, 0)].textContent;
};
const narrow = matchMedia("(max-width: 69.99rem)");
const fold = () => (contents.open = !narrow.matches);
narrow.addEventListener("change", fold);
for (const link of links) link.addEventListener("click", fold);
addEventListener("scroll", follow, { passive: true });
fold();
follow();
