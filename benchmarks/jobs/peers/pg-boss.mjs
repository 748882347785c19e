// pg-boss as its pages on workers say for throughput: batches, several workers in a process, a fetch at once after a
// full one (`burstWhenBatchFull`), and LISTEN and NOTIFY for the first job after a pause. 4 workers with batches of 500;
// handlers of HTTP jobs send the requests of a batch at the same time.
import { CONCURRENT_REQUESTS, add, httpJobs, main, now, pickUp, post, require, url } from "./program.mjs";

const { PgBoss } = require("pg-boss");
const { Pool } = require("pg");

const QUEUES = ["noop", "picked", "post"];
const batches = httpJobs
  ? { localConcurrency: 2, batchSize: CONCURRENT_REQUESTS / 2 }
  : { localConcurrency: 4, batchSize: 500 };
const options = { ...batches, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };

async function started(more) {
  const boss = new PgBoss({ connectionString: url, ...more });
  boss.on("error", console.error);
  return boss.start();
}

await main({
  install: async () => {
    const boss = await started({});
    for (const name of QUEUES) await boss.createQueue(name, { notify: true });
    await boss.stop();
  },
  client: async () => {
    const boss = await started({ supervise: false, schedule: false });
    const pool = new Pool({ connectionString: url, max: 1 });
    return {
      one: (name, payload) => boss.send(name, payload),
      many: (name, payloads) => boss.insert(name, payloads.map((data) => ({ data }))),
      claim: async (want) => (await boss.fetch("noop", { batchSize: want })).length,
      atCommit: async (name, payload) => {
        const client = await pool.connect();
        await client.query("begin");
        await boss.send(name, payload, { db: { executeSql: (text, values) => client.query(text, values) } });
        const at = now();
        await client.query("commit");
        client.release();
        return at;
      },
    };
  },
  work: async () => {
    const boss = await started({ useListenNotify: true });
    await boss.work("noop", options, async (jobs) => jobs.forEach(add));
    await boss.work("picked", options, async (jobs) => jobs.forEach((job) => pickUp(job.data.n)));
    await boss.work("post", options, async (jobs) => Promise.all(jobs.map((job) => post(job.data.url))));
    return () => boss.stop();
  },
});
