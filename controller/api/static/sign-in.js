// The token stands behind the # of the address, so that no server and no log sees it; it is taken away at once.
"use strict";

const token = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const asSentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[^.]$/, "$&.");
const form = document.querySelector("form");
const say = document.querySelector("#say");
const done = document.querySelector("#done");

async function signIn(code) {
  const answer = await fetch("/api/v1/auth/sign-in-link", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token, code }),
  });
  if (answer.ok) {
    form.hidden = true;
    done.hidden = false;
    say.textContent = "You are signed in.";
    return;
  }
  const problem = await answer.json().catch(() => ({}));
  form.hidden = !["second_factor_required", "wrong_code"].includes(problem.code);
  say.textContent = form.hidden || code
    ? [problem.detail || "It did not work.", problem.hint].filter(Boolean).map(asSentence).join(" ")
    : "One more step: a code of your device, or a recovery code.";
  if (!form.hidden) form.querySelector("input").focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(form.querySelector("input").value.trim());
});

if (token) signIn("");
else say.textContent = "Follow the link again from where you found it: a part of it is missing.";
