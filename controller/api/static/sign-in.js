import { complain, onSubmit, once, say, send, takeToken, turnTo } from "./link-page.js";

const token = takeToken();
const form = document.querySelector("form");
const code = document.querySelector("#code");
const passkey = document.querySelector("#passkey");
const IS_ASKED_AGAIN = ["wrong_code", "wrong_passkey", "rate_limited", "unreachable"];

async function signIn(second) {
  const { isOk, body } = await send("/auth/sign-in-link", { token, ...second });
  if (isOk) {
    form.hidden = true;
    document.querySelector("#done").hidden = false;
    turnTo("You are signed in");
    say(`Signed in as ${body.user.username}.`);
  } else if (body.code === "second_factor_required") {
    form.hidden = false;
    say("");
    turnTo("One more step");
    code.focus();
  } else if (!form.hidden && IS_ASKED_AGAIN.includes(body.code)) {
    if (body.code === "wrong_code") code.value = "";
    complain(body, code);
  } else {
    form.hidden = true;
    turnTo("You are not signed in");
    complain(body);
  }
}

async function signInByPasskey() {
  const { isOk, body } = await send("/auth/passkey-challenge", {});
  if (!isOk) {
    complain(body, code);
    return;
  }
  let credential;
  try {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(body.options);
    credential = (await navigator.credentials.get({ publicKey })).toJSON();
  } catch {
    complain({ detail: "No passkey was used. Try again, or use a code." }, code);
    return;
  }
  await signIn({ passkey: { challenge_id: body.challenge_id, credential } });
}

onSubmit(form, () => signIn({ code: code.value.trim() }));
passkey.addEventListener("click", () => once(signInByPasskey));
passkey.hidden = !window.PublicKeyCredential?.parseRequestOptionsFromJSON;

if (token) {
  say("One moment.");
  once(() => signIn({}));
} else {
  turnTo("You are not signed in");
  complain({ code: "wrong_link" });
}
