// A real PLC directory on loopback with four DIDs: one per curve, one whose key was rotated, one tombstone.
// Prints {"url", "dids": {name: {did, keys}}} once, then serves until its input ends.
const { createRequire } = require('node:module')
const need = createRequire(process.argv[2] + '/')
const { PlcServer, Database } = need('@did-plc/server')
const { Client } = need('@did-plc/lib')
const { Secp256k1Keypair, P256Keypair } = need('@atproto/crypto')

async function main() {
  const server = PlcServer.create({ db: Database.mock() })
  const listener = await server.start()
  const url = `http://127.0.0.1:${listener.address().port}`
  const client = new Client(url)
  const rotation = await Secp256k1Keypair.create()
  const dids = {}
  for (const name of ['k256', 'p256', 'rotated', 'tombstone']) {
    const key = await (name === 'p256' ? P256Keypair : Secp256k1Keypair).create()
    const did = await client.createDid({
      signingKey: key.did(), handle: `${name}.example.com`, pds: 'https://Pds.example.com/',
      rotationKeys: [rotation.did()], signer: rotation,
    })
    dids[name] = { did, keys: [key.did()] }
  }
  process.stdout.write(JSON.stringify({ url, dids }) + '\n')
  process.stdin.on('data', async () => {
    const key = await P256Keypair.create()
    await client.updateAtprotoKey(dids.rotated.did, rotation, key.did())
    await client.tombstone(dids.tombstone.did, rotation)
    process.stdout.write(JSON.stringify({ rotated: key.did() }) + '\n')
  })
  process.stdin.on('end', () => process.exit(0))
}
main()
