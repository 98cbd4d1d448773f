// An OpenID Connect provider for tests, on loopback: node server.js MODULES SETTINGS
//
// MODULES is the folder whose node_modules has oidc-provider; SETTINGS a JSON file: port, clients, and accounts (claims
// by login name), which is read anew for each question. Its pages take any password.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [modules, file] = process.argv.slice(2);
const module = createRequire(`${modules}/package.json`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(module));

const settings = () => JSON.parse(readFileSync(file, 'utf-8'));
const { port, clients, inIdToken } = settings();
const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(`http://localhost:${port}`, {
  clients,
  claims: {
    openid: ['sub'],
    profile: ['name', 'preferred_username', 'linked_usernames'],
    email: ['email', 'email_verified'],
  },
  conformIdTokenClaims: !inIdToken,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  pkce: { required: () => true },
  findAccount(ctx, id) {
    const claims = settings().accounts[id];
    return claims && { accountId: id, claims: () => ({ sub: id, ...claims }) };
  },
  // Who logs in here has agreed: what is asked for a consent is the hub.
  async loadExistingGrant(ctx) {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope('openid profile email');
    await grant.save();
    return grant;
  },
});

const server = provider.listen(port, '127.0.0.1', () => console.log('ready'));
process.on('SIGTERM', () => {
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
