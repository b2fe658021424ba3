// SPDX-License-Identifier: Apache-2.0
/*
 * The official Azure SDK, unchanged, against the emulator: one command, one JSON result.
 *
 * Usage: driver.js READY COMMAND [ARGUMENT]...
 *
 * READY is the emulator's ready.json. NODE_EXTRA_CA_CERTS names its CA. Commands: see the end.
 * A refusal of the service is a result, too: {"error": {"status", "code", "inner", "message"}}.
 */

import dns from 'node:dns';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import process from 'node:process';
import { pathToFileURL } from 'node:url';

// The SDK is installed apart from this tree: in the directory that $SDK_DIR names.
const sdk = createRequire(pathToFileURL(`${process.env.SDK_DIR ?? import.meta.dirname}/package.json`));
const identity = sdk('@azure/identity');
const { CryptographyClient, KeyClient } = sdk('@azure/keyvault-keys');

// libc does not resolve names below .localhost everywhere.
const lookup = dns.lookup;
dns.lookup = (name, options, done) => {
        const local = name.endsWith('.localhost') ? '127.0.0.1' : name;
        return lookup(local, options, done);
};

const [readyFile, command, ...rest] = process.argv.slice(2);
const ready = JSON.parse(fs.readFileSync(readyFile, 'utf8'));
const authority = { authorityHost: ready.authority, disableInstanceDiscovery: true };
const retryOptions = { maxRetries: 3, retryDelayInMs: 50, maxRetryDelayInMs: 200 };
const poll = { intervalInMs: 100 };

const credentials = {
        secret: () =>
                new identity.ClientSecretCredential(ready.tenant, ready.client_id, ready.client_secret, authority),
        wrongSecret: () => new identity.ClientSecretCredential(ready.tenant, ready.client_id, 'wrong', authority),
        certificate: () =>
                new identity.ClientCertificateCredential(
                        ready.tenant,
                        ready.client_id,
                        ready.client_certificate,
                        authority,
                ),
        workload: () =>
                new identity.WorkloadIdentityCredential({
                        tenantId: ready.tenant,
                        clientId: ready.client_id,
                        tokenFilePath: ready.federated_token_file,
                        ...authority,
                }),
        // These two take the environment: AZURE_POD_IDENTITY_AUTHORITY_HOST, AZURE_CLIENT_ID ...
        managed: () => new identity.ManagedIdentityCredential(),
        managedByClientId: () =>
                new identity.ManagedIdentityCredential({ clientId: ready.identities.find((i) => !i.system).appid }),
        default: () => new identity.DefaultAzureCredential(authority),
};

const credential = credentials[process.env.CREDENTIAL ?? 'secret']();
const base64 = (bytes) => Buffer.from(bytes).toString('base64');
const bytes = (text) => Buffer.from(text, 'base64');
const client = (url) => new KeyClient(url, credential, { retryOptions });
const cryptography = (key) => new CryptographyClient(key, credential, { retryOptions });

function shown(key) {
        const { id, name, keyType, keyOperations, properties } = key;
        return {
                id,
                name,
                keyType,
                keyOperations,
                version: properties.version,
                enabled: properties.enabled,
                expiresOn: properties.expiresOn?.toISOString(),
                recoveryLevel: properties.recoveryLevel,
                recoverableDays: properties.recoverableDays,
                tags: properties.tags,
                n: key.key?.n && base64(key.key.n),
        };
}

async function all(pages) {
        const found = [];
        for await (const item of pages) {
                found.push(item);
        }
        return found;
}

// Create, get, list, update, rotate, policy.
// The SDK cuts times to 32 bits, so no date after 2038.
async function keys(url) {
        const vault = client(url);
        const created = await vault.createRsaKey('kek', { keySize: 3072, tags: { purpose: 'fs' } });
        const again = await vault.createRsaKey('kek', { expiresOn: new Date('2037-01-01T00:00:00Z') });
        const old = await vault.getKey('kek', { version: created.properties.version });
        const updated = await vault.updateKeyProperties('kek', created.properties.version, {
                enabled: false,
                tags: { purpose: 'old' },
        });
        const policy = await vault.updateKeyRotationPolicy('kek', {
                expiresIn: 'P90D',
                lifetimeActions: [{ action: 'Rotate', timeBeforeExpiry: 'P30D' }],
        });
        const rotated = await vault.rotateKey('kek');
        const ec = await vault.createEcKey('ec', { curve: 'P-384' });
        return {
                created: shown(created),
                again: shown(again),
                old: shown(old),
                updated: shown(updated),
                policy,
                samePolicy: await vault.getKeyRotationPolicy('kek'),
                rotated: shown(rotated),
                latest: shown(await vault.getKey('kek')),
                ec: shown(ec),
                versions: (await all(vault.listPropertiesOfKeyVersions('kek'))).map((p) => p.version),
        };
}

// More keys than a page holds.
async function paging(url, count) {
        const vault = client(url);
        for (let i = 0; i < Number(count); i++) {
                await vault.createEcKey(`key-${String(i).padStart(3, '0')}`);
        }
        const pages = [];
        for await (const page of vault.listPropertiesOfKeys().byPage({ maxPageSize: 10 })) {
                pages.push(page.length);
        }
        return { pages, names: (await all(vault.listPropertiesOfKeys())).map((p) => p.name) };
}

async function softDelete(url) {
        const vault = client(url);
        const key = await vault.createRsaKey('kek');
        const poller = await vault.beginDeleteKey('kek', poll);
        const deleted = await poller.pollUntilDone();
        const listed = await all(vault.listDeletedKeys());
        const seen = await vault.getDeletedKey('kek');
        const recovered = await (await vault.beginRecoverDeletedKey('kek', poll)).pollUntilDone();
        await (await vault.beginDeleteKey('kek', poll)).pollUntilDone();
        await vault.purgeDeletedKey('kek');
        return {
                id: key.id,
                recoveryId: deleted.properties.recoveryId,
                retention: (seen.properties.scheduledPurgeDate - seen.properties.deletedOn) / 1000,
                listed: listed.map((k) => k.name),
                recovered: shown(recovered),
                afterPurge: await refusal(() => vault.getDeletedKey('kek')),
        };
}

async function backup(url, otherUrl) {
        const key = await client(url).createRsaKey('kek');
        const blob = await client(url).backupKey('kek');
        const restored = await client(otherUrl).restoreKeyBackup(blob);
        return { key: shown(key), restored: shown(restored) };
}

// A JWK, and a .byok blob as base64.
async function importing(url, jwk, byok) {
        const vault = client(url);
        const key = Object.fromEntries(
                Object.entries(JSON.parse(jwk)).map(([name, value]) => [
                        name,
                        name === 'kty' ? value : new Uint8Array(Buffer.from(value, 'base64url')),
                ]),
        );
        const imported = await vault.importKey('imported', { ...key, keyOps: ['wrapKey', 'unwrapKey'] });
        const transferred = await vault.importKey('transferred', {
                kty: 'RSA-HSM',
                keyOps: ['wrapKey', 'unwrapKey'],
                t: new Uint8Array(bytes(byok)),
        });
        return { imported: shown(imported), transferred: shown(transferred) };
}

// Everything that a RSA and an EC key can do.
async function crypto(url) {
        const vault = client(url);
        const plain = Buffer.from('0123456789abcdef0123456789abcdef');
        const key = await vault.createRsaKey('kek');
        const rsa = cryptography(key);
        const results = {};
        for (const algorithm of ['RSA1_5', 'RSA-OAEP', 'RSA-OAEP-256']) {
                const wrapped = await rsa.wrapKey(algorithm, plain);
                const unwrapped = await rsa.unwrapKey(algorithm, wrapped.result);
                const sealed = await rsa.encrypt({ algorithm, plaintext: plain });
                const opened = await rsa.decrypt({ algorithm, ciphertext: sealed.result });
                results[algorithm] = plain.equals(unwrapped.result) && plain.equals(opened.result);
        }
        const digest = (bits) => Buffer.alloc(bits / 8, 7);
        for (const algorithm of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']) {
                const hashed = digest(Number(algorithm.slice(2)));
                const signed = await rsa.sign(algorithm, hashed);
                results[algorithm] = (await rsa.verify(algorithm, hashed, signed.result)).result;
        }
        for (const [algorithm, curve] of Object.entries({ ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' })) {
                const ec = cryptography(await vault.createEcKey(`ec-${curve}`, { curve }));
                const hashed = digest(Number(algorithm.slice(2)));
                const signed = await ec.sign(algorithm, hashed);
                results[algorithm] = (await ec.verify(algorithm, hashed, signed.result)).result;
        }
        // Verified locally, and there the SDK takes PS256 for RS256.
        const data = Buffer.from('a message');
        const signed = await rsa.signData('RS256', data);
        results.signData = (await rsa.verifyData('RS256', data, signed.result)).result;
        results.damaged = await refusal(() => rsa.unwrapKey('RSA-OAEP-256', Buffer.alloc(256, 1)));
        return results;
}

// A Managed HSM: AES.
async function hsm(url) {
        const vault = client(url);
        const key = await vault.createOctKey('aes', { keySize: 256, hsm: true });
        const aes = cryptography(key);
        const plain = Buffer.from('0123456789abcdef0123456789abcdef');
        const wrapped = await aes.wrapKey('A256KW', plain);
        const unwrapped = await aes.unwrapKey('A256KW', wrapped.result);
        const sealed = await aes.encrypt({
                algorithm: 'A256GCM',
                plaintext: plain,
                additionalAuthenticatedData: Buffer.from('about'),
        });
        const opened = await aes.decrypt({
                algorithm: 'A256GCM',
                ciphertext: sealed.result,
                iv: sealed.iv,
                authenticationTag: sealed.authenticationTag,
                additionalAuthenticatedData: Buffer.from('about'),
        });
        return {
                key: shown(key),
                wrappedLength: wrapped.result.length,
                unwrapped: plain.equals(unwrapped.result),
                opened: plain.equals(opened.result),
                random: (await vault.getRandomBytes(32)).length,
        };
}

async function wrap(id, algorithm, value) {
        const answer = await cryptography(id).wrapKey(algorithm, bytes(value));
        return { value: base64(answer.result), keyId: answer.keyID };
}

async function unwrap(id, algorithm, value) {
        const answer = await cryptography(id).unwrapKey(algorithm, bytes(value));
        return { value: base64(answer.result), keyId: answer.keyID };
}

async function get(url, name) {
        return shown(await client(url).getKey(name));
}

// The same twice over one client: what the SDK does about trouble in between is up to the caller.
async function getTwice(url, name, control, hook) {
        const vault = client(url);
        const first = shown(await vault.getKey(name));
        const asked = await fetch(control, { method: 'POST', body: hook });
        if (!asked.ok) {
                throw new Error(await asked.text());
        }
        return { first, second: shown(await vault.getKey(name)) };
}

// By address the resource can't be a parent domain of the host.
async function byAddress(name) {
        const strict = new KeyClient(ready.vault_by_address, credential, { retryOptions });
        const lax = new KeyClient(ready.vault_by_address, credential, {
                retryOptions,
                disableChallengeResourceVerification: true,
        });
        return { strict: await refusal(() => strict.getKey(name)), lax: shown(await lax.getKey(name)) };
}

async function refusal(call) {
        try {
                await call();
                return null;
        } catch (e) {
                return {
                        name: e.name,
                        status: e.statusCode,
                        code: e.code,
                        inner: e.details?.error?.innerError?.code ?? e.details?.error?.innererror?.code,
                        message: e.message,
                };
        }
}

const commands = {
        keys,
        paging,
        softDelete,
        backup,
        importing,
        crypto,
        hsm,
        wrap,
        unwrap,
        get,
        getTwice,
        byAddress,
};

let result;
const error = await refusal(async () => {
        if (!Object.hasOwn(commands, command)) {
                throw new Error(`a command: one of ${Object.keys(commands).join(', ')}`);
        }
        result = await commands[command](...rest);
});
process.stdout.write(`${JSON.stringify(error ? { error } : result)}\n`);
process.exit(0);
