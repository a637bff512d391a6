// What both pages do: take the token out of the address, send, and say what came of it in sentences.

const TIMEOUT_MILLISECONDS = 30000;

// It stands behind the # of the address, so that no server and no log sees it; it is taken away at once.
export function takeToken() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  // A link that is opened where the page is open already changes what is behind the # and loads nothing.
  addEventListener("hashchange", () => location.reload());
  return token;
}

// The answer of the API: {isOk, body}. A server that cannot be reached is a problem like any other.
export async function send(path, content) {
  try {
    const answer = await fetch(`/api/v1${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(content),
      signal: AbortSignal.timeout(TIMEOUT_MILLISECONDS),
    });
    const body = await answer.json().catch(() => ({}));
    return { isOk: answer.ok, body };
  } catch {
    return { isOk: false, body: { code: "unreachable" } };
  }
}

// For people at a page; hints of the API are for those who type commands.
const SENTENCES = {
  unreachable: "The server does not answer. Try again in a moment.",
  reset_link_invalid: "This link was used already, was replaced by a newer one, or is too old. Have another one sent.",
  mail_not_configured: "This server sends no mails. Ask whoever runs it for another password.",
  wrong_link: "This link was used already, or is too old. Go back to where you found it and follow it again.",
  wrong_credentials: "You cannot sign in here at the moment. Ask whoever runs this server.",
  wrong_code: "This code is not right. Wait for the next one of your device, or use a recovery code.",
  wrong_passkey: "This passkey does not let you in here. Use a code.",
  passkeys_unavailable: "Passkeys do not work at this address. Use a code.",
};
const asSentence = (text) => text[0].toUpperCase() + text.slice(1).replace(/[^.]$/, "$&.");
const asText = ({ code, detail, hint }) =>
  SENTENCES[code] || [detail || "It did not work", hint].filter(Boolean).map(asSentence).join(" ");

const good = document.querySelector(".say.good");
const bad = document.querySelector(".say.bad");

export function say(text) {
  bad.textContent = "";
  good.textContent = text;
}

// What went wrong, at the field that it is about, if it is about one.
export function complain(problem, field = null) {
  good.textContent = "";
  bad.textContent = asText(problem);
  if (!field) return;
  field.setAttribute("aria-invalid", "true");
  field.focus();
}

// Another title, and with it the focus: whoever hears the page is told that it is another one now.
export function turnTo(title) {
  const heading = document.querySelector("h1");
  heading.textContent = title;
  document.title = `${title} - WCP360`;
  heading.focus();
}

// One request at a time, however often a button is pressed; a form that was sent complains of nothing yet.
let isBusy = false;
export async function once(act) {
  if (isBusy) return;
  isBusy = true;
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
  document.querySelectorAll("[aria-invalid]").forEach((field) => field.removeAttribute("aria-invalid"));
  bad.textContent = "";
  try {
    await act();
  } finally {
    buttons.forEach((button) => button.removeAttribute("aria-disabled"));
    isBusy = false;
  }
}

export function onSubmit(form, act) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    once(act);
  });
}
