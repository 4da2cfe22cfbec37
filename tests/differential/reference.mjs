// The reference implementation's side of the differential tests: one JSON request a line in, one JSON answer a line out.

import { createInterface } from 'node:readline'
import { verifySignature, Secp256k1Keypair, P256Keypair } from '../e2e/node_modules/@atproto/crypto/dist/index.js'
import {
  MemoryBlockstore,
  Repo,
  blocksToCarFile,
  verifyRepoCar,
} from '../e2e/node_modules/@atproto/repo/dist/index.js'

const bytes = (text) => Uint8Array.from(Buffer.from(text, 'base64'))
const text = (data) => Buffer.from(data).toString('base64')

// A repository led through batches of writes; of each commit, what a PDS sends.
async function commits({ did, curve, batches }) {
  const key = await (curve === 'k256' ? Secp256k1Keypair : P256Keypair).create()
  let repo = await Repo.create(new MemoryBlockstore(), did, key)
  const made = []
  for (const writes of batches) {
    const prevData = await repo.data.getPointer()
    const ops = []
    for (const { action, collection, rkey } of writes) {
      const prev = action === 'create' ? null : await repo.data.get(`${collection}/${rkey}`)
      ops.push({ action, path: `${collection}/${rkey}`, prev: prev && prev.toString() })
    }
    const commit = await repo.formatCommit(writes, key)
    repo = await repo.applyCommit(commit)
    for (const op of ops) {
      const cid = op.action === 'delete' ? null : await repo.data.get(op.path)
      op.cid = cid && cid.toString()
    }
    made.push({
      rev: commit.rev,
      commit: commit.cid.toString(),
      prevData: prevData.toString(),
      blocks: text(await blocksToCarFile(commit.cid, commit.relevantBlocks)),
      ops,
    })
  }
  return { key: key.did(), commits: made }
}

// The records of a whole repository that was made elsewhere.
async function repository({ did, key, blocks }) {
  const { creates } = await verifyRepoCar(bytes(blocks), did, key)
  return Object.fromEntries(creates.map(({ collection, rkey, cid }) => [`${collection}/${rkey}`, cid.toString()]))
}

// Some malformed signatures make it throw, which is a refusal too.
async function signature({ key, message, signature }) {
  return verifySignature(key, bytes(message), bytes(signature)).catch(() => false)
}

const answers = { commits, repository, signature }
for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...request } = JSON.parse(line)
  let answer
  try {
    answer = { ok: await answers[ask](request) }
  } catch (error) {
    answer = { error: String(error) }
  }
  console.log(JSON.stringify(answer))
}
