// As program.py: what the programs on Node.js share.
import { appendFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

export const require = createRequire(process.env.BENCH_NODE_MODULES + "/");
export const url = process.env.BENCH_DATABASE_URL;
export const httpJobs = process.env.BENCH_HTTP === "1";
export const CONCURRENT_REQUESTS = 20;
const BODY = '{"order_id": 42, "customer": "c-17", "total": "99.90"}';
const EVERY_MS = 20;
const folder = process.env.BENCH_TALLY;

export const now = () => process.hrtime.bigint();
const seconds = (began) => Number(now() - began) / 1e9;
const ready = () => console.log("ready");

let count = 0;
let written = 0;
function write() {
  if (count !== written) {
    written = count;
    appendFileSync(`${folder}/count-${process.pid}`, `${now()} ${count}\n`);
  }
}

export function add() {
  count += 1;
  if (count === 1) {
    write();
    setInterval(write, EVERY_MS);
  }
}

export function pickUp(number) {
  appendFileSync(`${folder}/picked-${process.pid}`, `${number} ${now()}\n`);
}

export async function post(to) {
  const answer = await fetch(to, { method: "POST", body: BODY, headers: { "Content-Type": "application/json" } });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  await answer.arrayBuffer();
  add();
}

async function claimMs(client, want) {
  const began = now();
  const got = await client.claim(want);
  const ms = seconds(began) * 1000;
  if (got !== want) throw new Error(`a claim of ${want} got ${got}`);
  return ms;
}

async function obey(client, command) {
  const began = now();
  switch (command.do) {
    case "one":
      for (let n = 0; n < command.count; n += 1) await client.one("noop", { n });
      return seconds(began);
    case "many":
      for (let first = 0; first < command.count; first += command.size) {
        const size = Math.min(command.size, command.count - first);
        const numbers = Array.from({ length: size }, (_, index) => first + index);
        if (command.url) await client.many("post", numbers.map(() => ({ url: command.url })));
        else await client.many("noop", numbers.map((n) => ({ n })));
      }
      return seconds(began);
    case "claim": {
      const times = [];
      for (let n = 0; n < command.times; n += 1) times.push(await claimMs(client, command.want));
      return times.sort((a, b) => a - b)[Math.floor(times.length / 2)];
    }
    case "pick-up":
      return Number(await client.atCommit("picked", { n: command.number }));
    default:
      throw new Error(`unknown command: ${JSON.stringify(command)}`);
  }
}

// `peer` has install(), client(), and work(), which gives a function that stops it.
export async function main(peer) {
  switch (process.argv[2]) {
    case "install":
      await peer.install();
      process.exit(0);
      break;
    case "client": {
      const client = await peer.client();
      ready();
      for await (const line of createInterface({ input: process.stdin })) {
        console.log(JSON.stringify(await obey(client, JSON.parse(line))));
      }
      process.exit(0);
      break;
    }
    case "work": {
      const stop = await peer.work();
      process.once("SIGTERM", () => stop().finally(() => process.exit(0)));
      ready();
      break;
    }
    default:
      throw new Error("give install, client or work");
  }
}
