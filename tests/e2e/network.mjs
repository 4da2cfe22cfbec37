// One PLC directory and any number of reference PDSs on loopback, in one process.
//
//   node network.mjs --plc=PORT --dir=FOLDER
//
// Prints a JSON line when the directory answers, then obeys one JSON command a line on stdin and answers each with a
// line: PDSs come and go, and what XRPC cannot do is done (turning a signing key without telling anyone, moving an
// identity with a rotation key). What an account's owner does over XRPC is the test's business. Ends when stdin
// closes, so that it never outlives the tests.
import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import fs from 'node:fs'
import path from 'node:path'
import readline from 'node:readline'
import { parseArgs } from 'node:util'
import { Secp256k1Keypair } from '@atproto/crypto'
import { PDS, envToCfg, envToSecrets } from '@atproto/pds'

const require = createRequire(import.meta.url)
const { Client: PlcClient } = require('@did-plc/lib')
const { Database: PlcDatabase, PlcServer } = require('@did-plc/server')

const { values: options } = parseArgs({
  options: { plc: { type: 'string' }, dir: { type: 'string' } },
})
const plcUrl = `http://localhost:${options.plc}`
const plcClient = new PlcClient(plcUrl)
// One rotation key for every account on every PDS, so that a command can sign for any of them.
const rotationKey = await Secp256k1Keypair.create({ exportable: true })
const folders = new Map()
const running = new Map()

const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')
const hex = (bytes) => Buffer.from(bytes).toString('hex')

async function startPds(port) {
  const folder = path.join(options.dir, port)
  fs.mkdirSync(path.join(folder, 'blobs'), { recursive: true })
  const env = {
    devMode: true,
    hostname: 'localhost',
    port: Number(port),
    didPlcUrl: plcUrl,
    serviceHandleDomains: ['.test'],
    inviteRequired: false,
    dataDirectory: folder,
    blobstoreDiskLocation: path.join(folder, 'blobs'),
    adminPassword: 'pds-admin',
    jwtSecret: 'a secret that only this loopback network uses',
    dpopSecret: hex(createHash('sha256').update(port).digest()),
    plcRotationKeyK256PrivateKeyHex: hex(await rotationKey.export()),
    recoveryDidKey: rotationKey.did(),
    rateLimitsEnabled: false,
    disableSsrfProtection: true,
  }
  const pds = await PDS.create(envToCfg(env), envToSecrets(env))
  await pds.start()
  const url = `http://localhost:${port}`
  folders.set(url, folder)
  running.set(url, pds)
}

// Where the PDS keeps an account's signing key; it reads the file again for each write.
function keyFile(pds, did) {
  const shard = createHash('sha256').update(did).digest('hex').slice(0, 2)
  return path.join(folders.get(pds), 'actors', shard, did, 'key')
}

const commands = {
  async startPds({ port }) {
    await startPds(port)
  },
  async stopPds({ pds }) {
    await running.get(pds).destroy()
    running.delete(pds)
  },
  // A new signing key in the PDS and in the PLC directory, and no #identity event about it.
  async rotateKey({ pds, did }) {
    const key = await Secp256k1Keypair.create({ exportable: true })
    fs.writeFileSync(keyFile(pds, did), await key.export())
    await plcClient.updateAtprotoKey(did, rotationKey, key.did())
  },
  // The identity names another PDS, and the signing key which that PDS made for the account.
  async moveIdentity({ did, pds, signingKey }) {
    await plcClient.updateData(did, rotationKey, (last) => ({
      ...last,
      verificationMethods: { ...last.verificationMethods, atproto: signingKey },
      services: { ...last.services, atproto_pds: { type: 'AtprotoPersonalDataServer', endpoint: pds } },
    }))
  },
}

await PlcServer.create({ db: PlcDatabase.mock(), port: Number(options.plc) }).start()
say({ ready: true })

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { command, ...details } = JSON.parse(line)
  try {
    await commands[command](details)
    say({ done: command })
  } catch (error) {
    say({ failed: command, message: String(error?.message ?? error) })
  }
}
process.exit(0)
