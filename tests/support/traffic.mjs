// Traffic to rooms on all nodes while a test does harm to some of them, and the account of it: support/traffic/.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import path from 'node:path';
import readline from 'node:readline';
import { PATIENCE_MS, afterwards, eventually, support } from './servers.mjs';

export const LOAD = { clients: 500, roomSize: 10, rate: 2000 };
const GENERATED = 0.95;

const flagsOf = (options) => Object.entries(options).flatMap(([name, value]) =>
  [`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, String(value)]);

// targets: [{name, address?, port, netns?}…]; mute: names of targets whose clients send nothing; the rest are options
// of the program. Returns when the traffic flows.
export async function startTraffic(context, targets, { mute = [], ...options } = {}) {
  const child = spawn(path.join(support, 'traffic'), [
    ...targets.flatMap(({ name, address = '127.0.0.1', port, netns }) =>
      ['--target', `${name}=${address}:${port}${netns ? `@${netns}` : ''}`]),
    ...mute.flatMap((name) => ['--mute', name]),
    ...flagsOf({ ...LOAD, patience: PATIENCE_MS / 1000, ...options }),
  ]);
  const traffic = { sent: 0, heard: 0, up: 0 };
  let complaints = '';
  let ended;
  child.stderr.on('data', (data) => { complaints += data; });
  readline.createInterface({ input: child.stdout }).on('line', (line) => Object.assign(traffic, JSON.parse(line)));
  child.on('error', (error) => { ended = String(error); });
  child.on('close', (code, signal) => { ended = signal ?? code; });
  child.stdin.on('error', () => {});
  afterwards(context, () => child.kill('SIGKILL'));

  const alive = () => {
    if (ended !== undefined && traffic.pairs === undefined) throw new Error(`the traffic ended (${ended}): ${complaints}`);
  };
  // Waits until so many more events are sent.
  traffic.more = async (count) => {
    const goal = traffic.sent + count;
    const dueMs = (count / (options.rate ?? LOAD.rate)) * 1000;
    await eventually(() => { alive(); return traffic.sent >= goal; }, `${count} more events to be sent`, dueMs + PATIENCE_MS);
  };
  traffic.until = (check, what) => eventually(() => { alive(); return check(); }, what);
  // Ends it, waits for all that is on its way, and gives the account.
  traffic.finish = async () => {
    child.stdin.end('\n');
    await eventually(() => { alive(); return ended !== undefined; }, 'the traffic to end', 3 * PATIENCE_MS);
    assert.equal(ended, 0, complaints);
    return { ...traffic, complaints };
  };
  await traffic.more(1);
  return traffic;
}

const pairsOf = (report, names) => report.pairs.filter(({ from, to }) => names.includes(from) && names.includes(to));
const sum = (list, key) => list.reduce((total, each) => total + each[key], 0);

// The worst time from sender to receiver between these targets.
export const worstMs = (report, names) => Math.max(...pairsOf(report, names).map(({ worst_ms: ms }) => ms));

export function summary(report) {
  const { sent, intended, heard, lost, twice, disordered } = report;
  return `${sent} of ${intended} events sent, ${heard} heard, ${lost} lost, ${twice} twice, ${disordered} out of order`;
}

// Nothing is missing, came twice or out of order anywhere: also what a client that is gone had sent is heard by all or none.
export function assertWhole(context, report) {
  context.diagnostic(summary(report));
  assert.ok(report.sent >= GENERATED * report.intended, `the load was not generated: ${summary(report)}`);
  assert.ok(report.heard > 0);
  const { lost, twice, disordered, strays, refused, unacknowledged, acks_wrong: acksWrong } = report;
  assert.deepEqual({ lost, twice, disordered, strays, refused, unacknowledged, acksWrong },
    { lost: 0, twice: 0, disordered: 0, strays: 0, refused: 0, unacknowledged: 0, acksWrong: 0 },
    JSON.stringify(report.pairs) + report.complaints.slice(-4000));
  assert.equal(sum(report.targets, 'gaps'), 0, report.complaints);
}

// Between the clients of these targets nothing was lost, and none of them lost its connection.
export function assertUndisturbed(context, report, names) {
  const pairs = pairsOf(report, names);
  const targets = report.targets.filter(({ name }) => names.includes(name));
  const told = JSON.stringify(pairs);
  context.diagnostic(`between ${names}: ${sum(pairs, 'heard')} heard, at most ${worstMs(report, names)} ms on their way`);
  assert.ok(report.sent >= GENERATED * report.intended, `the load was not generated: ${summary(report)}`);
  assert.ok(pairs.every(({ heard }) => heard > 0), told);
  for (const key of ['lost', 'twice', 'disordered']) assert.equal(sum(pairs, key), 0, `${key}: ${told}`);
  assert.equal(sum(targets, 'ended'), 0, report.complaints.slice(-4000));
}

// What was lost, if anything, was told to the clients of the targets that did not get it, and nothing came twice.
export function assertDeclared(report) {
  const { twice, disordered, strays } = report;
  assert.deepEqual({ twice, disordered, strays }, { twice: 0, disordered: 0, strays: 0 });
  for (const { name, gaps } of report.targets) {
    const lost = sum(report.pairs.filter(({ to }) => to === name), 'lost');
    assert.ok(lost === 0 || gaps > 0, `${name} missed ${lost} events in silence`);
  }
}
