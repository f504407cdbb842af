// An enterprise identity provider for tests: panva's certified `oidc-provider`, on loopback.
//
// What is the library's own: discovery, JWKS, dynamic registration, authorization code with PKCE,
// client_credentials, resource indicators, refresh tokens, revocation, introspection, DPoP.
// What is ours, because the library leaves it to whoever runs it: the sign-in page (no password:
// the form's `login` is the person), and `POST /test/assertion`, which signs an identity assertion
// (ID-JAG, draft-ietf-oauth-identity-assertion-authz-grant) with the provider's own key. The
// library does not mint those.
//
// Prints one line of JSON, `{"issuer": …}`, once it listens on a port that the system chose.
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { SignJWT, exportJWK, generateKeyPair, importJWK, calculateJwkThumbprint } from 'jose';
import { Provider } from 'oidc-provider';

const TTL = 300;
const PEOPLE_SCOPES = 'openid email profile groups offline_access';
const RESOURCE_SCOPES = 'agents:act tools:list tools:call crm:read crm:write';

async function makeKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(privateKey);
  return { ...jwk, alg, use: 'sig', kid: await calculateJwkThumbprint(jwk) };
}

// RS256 stands beside ES256 because registered clients get RS256 ID tokens unless they say other.
const keys = [await makeKey('ES256'), await makeKey('RS256')];

function findAccount(_ctx, id) {
  return {
    accountId: id,
    claims: () => ({
      sub: id,
      email: `${id}@idp.example`,
      email_verified: true,
      name: id,
      groups: ['staff'],
      preferred_username: id,
    }),
  };
}

// Whoever runs an enterprise's provider has consented for its people: nobody is asked.
async function loadExistingGrant(ctx) {
  const { client, session, params } = ctx.oidc;
  const known = session.grantIdFor(client.clientId);
  const grant =
    (known && (await ctx.oidc.provider.Grant.find(known))) ||
    new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
  grant.addOIDCScope(PEOPLE_SCOPES);
  for (const resource of [params.resource ?? []].flat()) {
    grant.addResourceScope(resource, RESOURCE_SCOPES);
  }
  await grant.save();
  return grant;
}

const configuration = {
  jwks: { keys },
  clients: [
    {
      client_id: 'robot',
      client_secret: 'robot-secret',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    },
  ],
  cookies: { keys: [randomUUID()] },
  scopes: PEOPLE_SCOPES.split(' '),
  claims: {
    openid: ['sub', 'acr', 'amr', 'auth_time'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username'],
    groups: ['groups'],
  },
  acrValues: ['urn:test:password', 'urn:test:passkey'],
  conformIdTokenClaims: false,
  findAccount,
  loadExistingGrant,
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  enabledJWA: { idTokenSigningAlgValues: ['ES256', 'RS256'], dPoPSigningAlgValues: ['ES256', 'EdDSA'] },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: async (_ctx, client, code) => client.grantTypeAllowed('refresh_token') && code.scopes.has('offline_access'),
  rotateRefreshToken: true,
  ttl: { AccessToken: TTL, ClientCredentials: TTL, IdToken: TTL, AuthorizationCode: 60, Interaction: 600, Session: 3600, Grant: 3600, RefreshToken: 3600 },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    revocation: { enabled: true },
    dPoP: { enabled: true },
    registration: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: RESOURCE_SCOPES,
        audience: resource,
        accessTokenTTL: TTL,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'ES256' } },
      }),
    },
  },
};

async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

function page(prompt, uid) {
  const escaped = (text) => String(text).replace(/[^A-Za-z0-9:._-]/g, '');
  return `<!doctype html><title>Test provider</title><h1>Sign in</h1>
<form method="post" action="/interaction/${escaped(uid)}">
<label>Name <input name="login" id="login" autofocus></label>
<input type="hidden" name="acr" value="urn:test:password">
<button id="go">${escaped(prompt)}</button></form>`;
}

// The sign-in page. A POST says who signed in: `login`, and how, by `acr` and `amr`.
async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method === 'GET') {
    response.setHeader('content-type', 'text/html; charset=utf-8');
    response.end(page(details.prompt.name, details.uid));
    return;
  }
  const form = new URLSearchParams(await readBody(request));
  const result = form.has('login')
    ? { login: { accountId: form.get('login'), acr: form.get('acr') ?? 'urn:test:password', amr: (form.get('amr') ?? 'pwd').split(' '), ts: Math.floor(Date.now() / 1000) } }
    : { error: 'access_denied', error_description: 'the person did not sign in' };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

// `{"claims": {...}, "header": {...}}` → a JWT that the provider's ES256 key signs.
async function assert(issuer, request, response) {
  const asked = JSON.parse(await readBody(request));
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: issuer, jti: randomUUID(), iat: now, exp: now + TTL, ...asked.claims };
  const header = { typ: 'oauth-id-jag+jwt', kid: keys[0].kid, ...asked.header, alg: 'ES256' };
  const key = await importJWK(keys[0], 'ES256');
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ assertion: await new SignJWT(claims).setProtectedHeader(header).sign(key) }));
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const standard = provider.callback();
  server.on('request', (request, response) => {
    const failed = (error) => {
      console.error(error);
      response.statusCode = 500;
      response.end(String(error));
    };
    if (request.url.startsWith('/interaction/')) interact(provider, request, response).catch(failed);
    else if (request.url === '/test/assertion') assert(issuer, request, response).catch(failed);
    else standard(request, response);
  });
  console.log(JSON.stringify({ issuer }));
});
process.stdin.resume().on('end', () => process.exit(0)); // never outlives the tests that started it
