// One agent, by a library that is certified for DPoP: reads what to do from stdin, tells on stdout.
import * as oauth from "openid-client";

let text = "";
for await (const chunk of process.stdin) text += chunk;
const asked = JSON.parse(text);

const subtle = globalThis.crypto.subtle;
const kinds = {
  ES256: { name: "ECDSA", namedCurve: "P-256" },
  Ed25519: { name: "Ed25519" },
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
};
const key = await subtle.importKey("jwk", asked.key, kinds[asked.algorithm], false, ["sign"]);

const config = await oauth.discovery(
  new URL(asked.issuer),
  asked.client,
  undefined,
  oauth.PrivateKeyJwt(key),
  { algorithm: "oauth2", execute: [oauth.allowInsecureRequests] },
);
const DPoP = oauth.getDPoPHandle(config, await oauth.randomDPoPKeyPair(asked.proofs));
const tokens = await oauth.clientCredentialsGrant(config, { resource: asked.url }, { DPoP });

const answers = [];
for (const { method, url, body, headers } of asked.requests) {
  const reply = await oauth.fetchProtectedResource(
    config,
    tokens.access_token,
    new URL(url),
    method,
    body,
    new Headers(headers),
    { DPoP },
  );
  answers.push({ status: reply.status, body: await reply.text() });
}
console.log(JSON.stringify({ tokens, answers }));
