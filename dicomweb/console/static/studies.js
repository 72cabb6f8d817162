// Search as you type: the same page is fetched for what the form says, and its results replace the ones shown.
const form = document.getElementById("search");
const PAUSE_MS = 150;
let timer, running;

async function search() {
  running?.abort();
  running = new AbortController();
  const url = new URL(location.pathname, location.origin);
  for (const [key, value] of new FormData(form)) if (value) url.searchParams.set(key, value);
  try {
    const answer = await fetch(url, { signal: running.signal });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const results = page.getElementById("results");
    if (results) document.getElementById("results").replaceWith(results);
    history.replaceState(null, "", url);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

form?.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(search, PAUSE_MS);
});
form?.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});

// A fresh node shows how to send a study; it turns into the list as soon as one arrives.
const FIRST_STUDY_MS = 3000;
if (!form) setInterval(async () => {
  const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
  if (page.getElementById("search")) location.reload();
}, FIRST_STUDY_MS);
