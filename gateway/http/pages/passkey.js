// Passkeys: the one thing that these pages cannot do without a script. It talks to its own origin.
"use strict";

const bytes = (text) => Uint8Array.from(
  atob(text.replace(/-/g, "+").replace(/_/g, "/")), (char) => char.charCodeAt(0));

const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

const post = async (path, body) => {
  const reply = await fetch(path, {
    method: "POST", credentials: "same-origin", redirect: "error",
    headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const answer = await reply.json();
  if (!reply.ok) throw new Error(answer.detail || "this did not work; try again");
  return answer;
};

const create = async (form) => {
  const said = { csrf: form.elements.csrf.value };
  const options = await post("/account/passkeys/options", said);
  options.challenge = bytes(options.challenge);
  options.user.id = bytes(options.user.id);
  (options.excludeCredentials || []).forEach((one) => { one.id = bytes(one.id); });
  const made = await navigator.credentials.create({ publicKey: options });
  return post("/account/passkeys", {
    ...said,
    label: form.elements.label.value,
    credential: {
      id: made.id, rawId: text(made.rawId), type: made.type,
      response: {
        clientDataJSON: text(made.response.clientDataJSON),
        attestationObject: text(made.response.attestationObject),
      },
    },
  });
};

const use = async (form) => {
  const options = await post("/signin/passkey/options", {});
  options.challenge = bytes(options.challenge);
  const found = await navigator.credentials.get({ publicKey: options });
  const handle = found.response.userHandle;
  return post("/signin/passkey", {
    next: form.elements.next.value,
    credential: {
      id: found.id, rawId: text(found.rawId), type: found.type,
      response: {
        clientDataJSON: text(found.response.clientDataJSON),
        authenticatorData: text(found.response.authenticatorData),
        signature: text(found.response.signature),
        userHandle: handle ? text(handle) : null,
      },
    },
  });
};

const wire = (id, act) => {
  const form = document.getElementById(id);
  if (!form) return;
  const say = form.querySelector("[role=alert]");
  if (!window.PublicKeyCredential) {
    form.querySelector("button").disabled = true;
    say.textContent = "this browser has no passkeys";
    say.hidden = false;
    return;
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    say.hidden = true;
    try {
      const answer = await act(form);
      window.location.assign(answer.next);
    } catch (error) {
      say.textContent = {
        NotAllowedError: "no passkey was used; try again",
        SecurityError: "passkeys need the gateway to have a name, not an address: `public_url`",
        InvalidStateError: "this device has a passkey here already",
      }[error.name] || error.message;
      say.hidden = false;
    }
  });
};

wire("passkey-create", create);
wire("passkey-use", use);
