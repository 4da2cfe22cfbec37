// The reference consumer: @atproto/sync's Firehose, which verifies each commit against the PLC directory itself.
//
//   node consumer.mjs --relay=ws://localhost:2470 --plc=http://localhost:2582 [--cursor=N]
//
// Prints a JSON line for each event and each error. It reconnects by itself from the last event it has finished with,
// and ends when stdin closes.
import { parseArgs } from 'node:util'
import { IdResolver } from '@atproto/identity'
import { Firehose, MemoryRunner } from '@atproto/sync'

const { values: options } = parseArgs({
  options: { relay: { type: 'string' }, plc: { type: 'string' }, cursor: { type: 'string' } },
})
const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

const firehose = new Firehose({
  service: options.relay,
  // The library's own fetch refuses plain http and loopback, and its 3 seconds are too few for a busy machine: each
  // lookup that takes longer is an error.
  idResolver: new IdResolver({ plcUrl: options.plc, fetch: globalThis.fetch, timeout: 120_000 }),
  runner: new MemoryRunner({ startCursor: options.cursor === undefined ? undefined : Number(options.cursor) }),
  // The handles end in .test, which no name server knows.
  unauthenticatedHandles: true,
  maxReconnectSeconds: 1,
  subscriptionReconnectDelay: 200,
  handleEvent: ({ event, seq, did, rev, collection, rkey, cid, active, status }) => {
    const path = collection === undefined ? undefined : `${collection}/${rkey}`
    say({ event, seq, did, rev, path, cid: cid?.toString(), active, status })
  },
  onError: (error) => say({ error: String(error.message), cause: String(error.cause?.message ?? error.cause ?? '') }),
})
firehose.start()
say({ ready: true })

process.stdin.on('end', () => process.exit(0)).resume()
