// Graphile Worker with the configuration of its page on performance (https://worker.graphile.org/docs/performance):
// 24 jobs at a time, 25 connections, a local queue of 500, and completions in batches.
import { CONCURRENT_REQUESTS, add, httpJobs, main, now, pickUp, post, require, url } from "./program.mjs";

const { Logger, makeWorkerUtils, run } = require("graphile-worker");
const { Pool } = require("pg");
// What its local queue calls; the package does not export it.
const inside = (file) => require(`${process.env.BENCH_NODE_MODULES}/graphile-worker/dist/${file}`);
const { batchGetJobs } = inside("sql/getJobs.js");
const { makeEnhancedWithPgClient, processSharedOptions } = inside("lib.js");

const concurrentJobs = httpJobs ? CONCURRENT_REQUESTS : 24;
const preset = {
  worker: {
    connectionString: url,
    concurrentJobs,
    maxPoolSize: 25,
    localQueue: { size: httpJobs ? concurrentJobs + 1 : 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    // It writes a line for each job by default; here only what goes wrong.
    logger: new Logger(() => (level, message) => ["error", "warning"].includes(level) && console.error(message)),
  },
};
const taskList = {
  noop: async () => add(),
  picked: async ({ n }) => pickUp(n),
  post: async (payload) => post(payload.url),
};

await main({
  install: async () => (await makeWorkerUtils({ preset })).migrate(),
  client: async () => {
    const utils = await makeWorkerUtils({ preset });
    const pool = new Pool({ connectionString: url, max: 1 });
    const options = processSharedOptions({ preset });
    const withClient = makeEnhancedWithPgClient(async (callback) => {
      const client = await pool.connect();
      try {
        return await callback(client);
      } finally {
        client.release();
      }
    });
    return {
      one: (name, payload) => utils.addJob(name, payload),
      many: (name, payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: name, payload }))),
      claim: async (want) => (await batchGetJobs(options, withClient, taskList, "bench", null, want)).length,
      atCommit: async (name, payload) => {
        const client = await pool.connect();
        await client.query("begin");
        await client.query("select graphile_worker.add_job($1, $2::json)", [name, JSON.stringify(payload)]);
        const at = now();
        await client.query("commit");
        client.release();
        return at;
      },
    };
  },
  work: async () => {
    const runner = await run({ preset, taskList, noHandleSignals: true });
    return () => runner.stop();
  },
});
