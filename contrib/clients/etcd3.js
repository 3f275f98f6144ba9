// The everyday calls of the npm package etcd3, a line each: `ok NAME` or `not ok NAME`.
'use strict';

const path = require('path');
const assert = require('assert');
const { Etcd3 } = require(path.join(process.cwd(), 'node_modules', 'etcd3'));

const PATIENCE_MS = 20000;

/** Fails if it is not there in time. */
function inTime(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error('too late')), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const tests = {
  async 'put, get and delete'(client) {
    await client.put('k').value('v1');
    assert.strictEqual(await client.get('k').string(), 'v1');
    const before = await client.put('k').value('v2').getPrevious();
    assert.strictEqual(before.value.toString(), 'v1');
    assert.strictEqual((await client.delete().key('k')).deleted, '1');
    assert.strictEqual(await client.get('k').string(), null);
  },

  async 'ranges, sorted, limited and counted'(client) {
    for (const key of ['r/b', 'r/a', 'r/c']) await client.put(key).value(key.toUpperCase());
    assert.deepStrictEqual(await client.getAll().prefix('r/').strings(), { 'r/a': 'R/A', 'r/b': 'R/B', 'r/c': 'R/C' });
    assert.deepStrictEqual(await client.getAll().prefix('r/').sort('Key', 'Descend').limit(2).keys(), ['r/c', 'r/b']);
    assert.strictEqual(await client.getAll().prefix('r/').count(), 3);
    assert.strictEqual((await client.delete().prefix('r/')).deleted, '3');
  },

  async 'bytes and large values'(client) {
    const value = Buffer.alloc(1 << 20, 0xfe);
    await client.put(Buffer.from([0, 255, 13, 10])).value(value);
    assert(value.equals(await client.get(Buffer.from([0, 255, 13, 10])).buffer()));
  },

  async 'a transaction'(client) {
    const create = () => client.if('t', 'Create', '==', 0)
      .then(client.put('t').value('mine')).else(client.get('t')).commit();
    assert.strictEqual((await create()).succeeded, true);
    const second = await create();
    assert.strictEqual(second.succeeded, false);
    assert.strictEqual(second.responses[0].response_range.kvs[0].value.toString(), 'mine');
  },

  async 'software transactional memory'(client) {
    await client.put('stm').value('1');
    const bump = () => client.stm().transact(async tx => {
      const seen = await tx.get('stm').number();
      await tx.put('stm').value(seen + 1);
    });
    await Promise.all([bump(), bump(), bump()]);
    assert.strictEqual(await client.get('stm').number(), 4);
  },

  async 'a watch tells puts and deletions'(client) {
    const watcher = await client.watch().prefix('w/').withPreviousKV().create();
    const told = [];
    const all = new Promise(resolve => {
      const take = kind => (kv, previous) => {
        told.push([kind, kv.key.toString(), previous ? previous.value.toString() : null]);
        if (told.length === 3) resolve();
      };
      watcher.on('put', take('put'));
      watcher.on('delete', take('delete'));
    });
    await client.put('w/1').value('a');
    await client.put('w/1').value('b');
    await client.put('x').value('not told');
    await client.delete().key('w/1');
    await inTime(all);
    assert.deepStrictEqual(told, [['put', 'w/1', null], ['put', 'w/1', 'a'], ['delete', 'w/1', 'b']]);
    await watcher.cancel();
  },

  async 'a watch of the past'(client) {
    const put = await client.put('past').value('1');
    await client.put('past').value('2');
    const watcher = await client.watch().key('past').startRevision(put.header.revision).watcher();
    const values = [];
    await inTime(new Promise(resolve => watcher.on('put', kv => {
      values.push(kv.value.toString());
      if (values.length === 2) resolve();
    })));
    assert.deepStrictEqual(values, ['1', '2']);
    await watcher.cancel();
  },

  async 'a lease keeps its key, and takes it along'(client) {
    const lease = client.lease(5);
    await lease.put('leased').value('x');
    await lease.keepaliveOnce();
    assert.strictEqual(await client.get('leased').string(), 'x');
    const { keys } = await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true });
    assert.deepStrictEqual(keys.map(String), ['leased']);
    await lease.revoke();
    assert.strictEqual(await client.get('leased').string(), null);
  },

  async 'a lock excludes'(client) {
    const lock = client.lock('l').ttl(10);
    await lock.acquire();
    await assert.rejects(client.lock('l').acquire(), /[Ll]ock/);
    await lock.release();
    await client.lock('l').do(async () => undefined);
  },

  async 'an election has a leader, and an observer sees it'(client) {
    const election = client.election('e', 10);
    const campaign = election.campaign('one');
    await inTime(new Promise((resolve, reject) => {
      campaign.on('elected', resolve);
      campaign.on('error', reject);
    }));
    assert.strictEqual(await election.leader(), 'one');
    const observer = await election.observe();
    assert.strictEqual(observer.leader(), 'one');
    await observer.cancel();
    await campaign.resign();
  },

  async 'namespaces'(client) {
    const inner = client.namespace('ns/');
    await inner.put('k').value('inside');
    assert.strictEqual(await client.get('ns/k').string(), 'inside');
    assert.deepStrictEqual(await inner.getAll().keys(), ['k']);
  },

  async 'maintenance and members'(client) {
    const status = await client.maintenance.status();
    assert.match(status.version, /^3\.5\./);
    assert.notStrictEqual(status.leader, '0');
    const { members } = await client.cluster.memberList({});
    assert.strictEqual(members.length, 1);
    assert.notStrictEqual((await client.maintenance.hash()).hash, 0);
    const snapshot = await client.maintenance.snapshot();
    let bytes = 0;
    await inTime(new Promise((resolve, reject) => {
      snapshot.on('data', part => { bytes += part.blob.length; });
      snapshot.on('end', resolve);
      snapshot.on('error', reject);
    }));
    assert.strictEqual(bytes % 512, 32);
  },

  async 'errors have their classes'(client) {
    const { EtcdLeaseInvalidError } = require(path.join(process.cwd(), 'node_modules', 'etcd3'));
    await assert.rejects(Promise.resolve(client.put('k').value('v').lease('12345')), EtcdLeaseInvalidError);
  },
};

async function main() {
  for (const [name, test] of Object.entries(tests)) {
    // One each: after an error a client may refuse to ask for a while.
    const client = new Etcd3({ hosts: 'http://127.0.0.1:2379' });
    try {
      await inTime(test(client));
      console.log(`ok ${name}`);
    } catch (error) {
      console.log(`not ok ${name}`);
      console.log(error);
    }
    client.close();
  }
}

main().then(() => process.exit(0));
