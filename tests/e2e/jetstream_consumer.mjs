// What most bots use for Jetstream: @skyware/jetstream, on the relay's JSON stream.
//
//   node jetstream_consumer.mjs --endpoint=ws://localhost:2470/subscribe
//
// Prints a JSON line for each event and each error. It reconnects by itself from the last event that it has seen, and
// ends when stdin closes.
import { parseArgs } from 'node:util'
import { Jetstream } from '@skyware/jetstream'

const { values: options } = parseArgs({ options: { endpoint: { type: 'string' } } })
const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

// From the beginning: the library leaves out a cursor of 0.
const jetstream = new Jetstream({ endpoint: options.endpoint, cursor: 1 })
jetstream.on('commit', ({ did, commit: { rev, operation, collection, rkey, cid, record } }) => {
  if ((record === undefined) !== (operation === 'delete')) say({ error: `${collection}/${rkey}: ${operation}` })
  say({ event: operation, did, rev, path: `${collection}/${rkey}`, cid })
})
jetstream.on('identity', ({ did }) => say({ event: 'identity', did }))
jetstream.on('account', ({ did, account: { active, status } }) => say({ event: 'account', did, active, status }))
jetstream.on('open', () => say({ ready: true }))
jetstream.start()

process.stdin.on('end', () => process.exit(0)).resume()
