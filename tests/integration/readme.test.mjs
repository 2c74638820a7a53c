// Every command and the example of README.md, in their order, against a bus of the test's own.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually, freePort, PATIENCE_MS } from '../support/servers.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const bin = path.resolve(root, process.env.STARLING_BIN ?? 'build/release/bin');
const readme = fs.readFileSync(path.join(root, 'README.md'), 'utf8');

// These install, build and run everything; whoever reads this test is in the middle of one of them.
const SET_UP = ['deploy/up', 'tests/run'];

const blocks = (language) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))].map(([, text]) => text);
const commands = blocks('sh').join('').replaceAll('\\\n', ' ').split('\n').filter(Boolean);
const [example] = blocks('js');

const bus = {};
const own = (text) => text.replaceAll('build/release/bin', bin).replaceAll(':7700', `:${bus.port}`);

before(async () => {
  bus.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'starling-test-'));
  bus.env = { ...process.env, XDG_RUNTIME_DIR: bus.folder };
  bus.port = await freePort();
  bus.child = spawn(path.join(bin, 'starling'), ['up', '-n', '2', '--port', String(bus.port)], { env: bus.env });
  let output = '';
  for (const stream of [bus.child.stdout, bus.child.stderr]) stream.on('data', (data) => { output += data; });
  bus.ended = new Promise((resolve) => { bus.child.on('close', resolve); });
  let end;
  bus.ended.then((code) => { end = code; });
  await eventually(() => {
    if (end !== undefined) throw new Error(`the bus ended at its start (${end}): ${output}`);
    return /^ready: /m.test(output);
  }, 'the bus to be ready');
});

after(async () => {
  bus.child.kill('SIGTERM');
  await bus.ended;
  fs.rmSync(bus.folder, { recursive: true, force: true });
});

test('the set-up commands are there', () => {
  for (const command of SET_UP) {
    assert.ok(commands.includes(command));
    fs.accessSync(path.join(root, command), fs.constants.X_OK);
  }
});

test('the links lead to files that exist', () => {
  for (const [, target] of readme.matchAll(/\]\(([^)#]+)\)/g)) assert.ok(fs.existsSync(path.join(root, target)), target);
});

test('the example prints what it receives', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', own(example)],
    { cwd: path.join(root, 'tests') });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output += data; });
  try {
    await eventually(() => /^news: hello \{ n: 1 \}$/m.test(output) && /^\{ ok: true, id: '.*:\d+' \}$/m.test(output),
      'the example to receive its event').catch((error) => { throw new Error(`${error.message}: ${output}`); });
  } finally {
    child.kill();
  }
});

for (const command of commands.filter((each) => !SET_UP.includes(each))) {
  test(`$ ${command}`, () => {
    const { status, stdout, stderr } = spawnSync('bash', ['-c', own(command)],
      { cwd: root, env: bus.env, encoding: 'utf8', timeout: PATIENCE_MS });
    assert.equal(status, 0, stdout + stderr);
  });
}

test('the last command has stopped the bus', async () => {
  assert.match(commands.at(-1), / stop$/);
  assert.equal(await bus.ended, 0);
});
