"use strict";
// A browser opens few videos at a time, so each is looked at when it comes into view.
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    seen.unobserve(entry.target);
    entry.target.preload = "metadata";
  }
}, { rootMargin: "50%" });
for (const panel of document.querySelectorAll(".panel")) {
  const video = panel.querySelector("video");
  const begin = Number(panel.dataset.begin), end = Number(panel.dataset.end);
  const marks = panel.querySelectorAll(".mark");
  const play = (seconds) => {
    video.currentTime = Math.max(seconds, 0);
    video.play().catch(() => {});
  };
  const follow = () => {
    const place = Math.min(Math.max((video.currentTime - begin) / (end - begin), 0), 1);
    for (const mark of marks) mark.style.left = `${100 * place}%`;
  };
  for (const area of panel.querySelectorAll(".area")) {
    area.addEventListener("click", (event) => {
      const box = area.getBoundingClientRect();
      play(begin + (end - begin) * (event.clientX - box.left) / box.width);
    });
  }
  for (const button of panel.querySelectorAll("button[data-start]")) {
    button.addEventListener("click", () => play(Number(button.dataset.start)));
  }
  video.addEventListener("timeupdate", follow);
  video.addEventListener("seeking", follow);
  video.addEventListener("error", () => panel.classList.add("missing"), true);
  seen.observe(video);
}
