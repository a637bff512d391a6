import { complain, onSubmit, say, send, takeToken, turnTo } from "./link-page.js";

const token = takeToken();
const choose = document.querySelector("#choose");
const ask = document.querySelector("#ask");
const [password, again, show, name] = ["password", "again", "show", "name"].map((id) => document.getElementById(id));
const ABOUT_PASSWORDS = ["password_too_weak", "password_reused", "invalid_input", "validation_failed"];

show.addEventListener("change", () => {
  password.type = again.type = show.checked ? "text" : "password";
});

onSubmit(choose, async () => {
  if (password.value !== again.value) {
    complain({ detail: "The two passwords are not the same." }, again);
    return;
  }
  const { isOk, body } = await send("/auth/password-reset/confirm", { token, password: password.value });
  if (isOk) {
    choose.hidden = true;
    turnTo("Your password is changed");
    say("Sign in with the new one. You are signed out everywhere else.");
  } else if (body.code === "reset_link_invalid") {
    beginAgain();
    complain(body);
  } else {
    complain(body, ABOUT_PASSWORDS.includes(body.code) ? password : null);
  }
});

onSubmit(ask, async () => {
  const { isOk, body } = await send("/auth/password-reset", { username_or_email: name.value.trim() });
  if (!isOk) {
    complain(body);
    return;
  }
  ask.hidden = true;
  turnTo("Look into your mail");
  say("If this is the name or the address of somebody here, a link is on its way. It is good for 30 minutes.");
});

function beginAgain() {
  choose.hidden = true;
  ask.hidden = false;
  turnTo("Forgotten your password?");
}

if (token) choose.hidden = false;
else beginAgain();
