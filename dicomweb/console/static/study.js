// The AI's part of the page is fetched again while something may still happen, so nobody has to reload.
const AGAIN_MS = 3000;
const UNFINISHED = ["PLANNED", "QUEUED", "RUNNING", "STORING", "RETRY_WAIT"];

function unfinished(live) {
  const states = [...live.querySelectorAll(".state")].map((state) => state.textContent.trim());
  return !states.length || live.dataset.state === "open" || states.some((state) => UNFINISHED.includes(state));
}

async function refresh() {
  const answer = await fetch(location.href);
  if (answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
  }
  wait();
}

function wait() {
  if (unfinished(document.getElementById("live"))) setTimeout(refresh, AGAIN_MS);
}
wait();
