// The token stands behind the # of the address, so that no server and no log sees it; it is taken away at once.
"use strict";

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const asSentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[^.]$/, "$&.");
const form = document.querySelector("form");
const say = document.querySelector("#say");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [first, second] = form.querySelectorAll("input");
  if (first.value !== second.value) {
    say.textContent = "The two are not the same.";
    return;
  }
  const answer = await fetch("/api/v1/auth/password-reset/confirm", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token, password: first.value }),
  });
  if (answer.ok) {
    form.hidden = true;
    say.textContent = "Done. Sign in with the new password; you are signed out everywhere.";
    return;
  }
  const problem = await answer.json().catch(() => ({}));
  say.textContent = [problem.detail || "It did not work.", problem.hint].filter(Boolean).map(asSentence).join(" ");
});

if (!token) {
  form.hidden = true;
  say.textContent = "Open the link of the mail as a whole: a part of it is missing.";
}
