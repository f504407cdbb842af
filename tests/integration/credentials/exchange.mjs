// An identity provider that exchanges tokens (RFC 8693): panva's `oidc-provider`, on loopback.
//
// The library's own: client authentication, resource indicators, the token's format and signature,
// the shape of errors and answers. Ours, because the library leaves custom grants to whoever runs
// it: reading the subject token, which has to be an assertion of the issuer that this one trusts.
//
// Takes the trusted issuer and its JWKS as JSON in its one argument; prints `{"issuer": …}`.
import { createServer } from 'node:http';
import { calculateJwkThumbprint, createLocalJWKSet, exportJWK, generateKeyPair, jwtVerify } from 'jose';
import { errors, Provider } from 'oidc-provider';

const GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const TTL = 120;
const trusted = JSON.parse(process.argv[2]);
const keys = createLocalJWKSet(trusted.jwks);
const seen = new Set();

const { privateKey } = await generateKeyPair('ES256', { extractable: true });
const jwk = await exportJWK(privateKey);
const own = { ...jwk, alg: 'ES256', use: 'sig', kid: await calculateJwkThumbprint(jwk) };

const server = createServer();
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;

const resourceServer = (_ctx, resource) => ({
  scope: 'mail:read mail:send',
  audience: resource,
  accessTokenTTL: TTL,
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg: 'ES256' } },
});

const provider = new Provider(issuer, {
  jwks: { keys: [own] },
  clients: [{
    client_id: 'gw',
    client_secret: 'gw-secret-0123456789',
    grant_types: [GRANT, 'client_credentials'],
    redirect_uris: [],
    response_types: [],
  }],
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  extraTokenClaims: (_ctx, token) => token.extra,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer },
  },
});

async function read(params) {
  if (params.subject_token_type !== JWT) throw new errors.InvalidRequest('subject_token_type');
  const expected = { issuer: trusted.issuer, audience: `${issuer}/token`, typ: 'JWT', algorithms: ['ES256'], maxTokenAge: 60, requiredClaims: ['sub', 'jti', 'exp'] };
  try {
    const { payload } = await jwtVerify(params.subject_token, keys, expected);
    if (seen.has(payload.jti)) throw new Error('replayed');
    seen.add(payload.jti);
    return payload;
  } catch (error) {
    throw new errors.InvalidGrant('subject_token', error.message);
  }
}

async function exchange(ctx) {
  const { client, params } = ctx.oidc;
  const subject = await read(params);
  const token = new provider.AccessToken({
    accountId: subject.sub,
    client,
    gty: 'token_exchange',
    scope: params.scope,
    extra: { act: subject.act },
  });
  token.resourceServer = new provider.ResourceServer(params.resource, resourceServer(ctx, params.resource));
  ctx.body = {
    access_token: await token.save(),
    issued_token_type: ACCESS_TOKEN,
    token_type: token.tokenType,
    expires_in: token.expiration,
  };
}

provider.registerGrantType(GRANT, exchange, ['subject_token', 'subject_token_type', 'requested_token_type', 'scope', 'resource', 'audience']);
server.on('request', provider.callback());
console.log(JSON.stringify({ issuer }));
process.stdin.resume().on('end', () => process.exit(0)); // never outlives the tests that started it
