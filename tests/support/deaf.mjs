// Agents at a node that hear all that is emitted and handle `deaf`, and then stop granting; in a process of its own, as
// what they cost must not keep the agents of the test from their signs of life. Says {ready: count} when it has them, and
// to {read: count} that one of them has got so many events `flood` when it reads again.
import { Agent, KIND } from './agent.mjs';
import { eventually } from './servers.mjs';

const [endpoint, count] = process.argv.slice(2);
const AT_ONCE = 50;
const deaf = [];

const isOver = ({ records }) => records.some(([kind]) => kind === KIND.BYE);

async function begin() {
  const agent = new Agent(endpoint, { name: 'deaf', window: 65536 });
  try {
    await agent.open();
    await agent.request(KIND.SUBSCRIBE, {});
    await agent.request(KIND.HANDLE, { events: ['deaf'], deadline_ms: 200 });
  } catch (error) {
    agent.close();
    throw error;
  }
  agent.deafen();
  return agent;
}

// On a busy machine this process may be too late with a sign of life of some: another one then.
async function read(wanted) {
  for (const agent of deaf) {
    agent.hear();
    agent.grants = !isOver(agent);
    if (agent.grants) agent.send([KIND.CREDIT, agent.received + 2 ** 22]);
    const got = () => agent.records.filter((record) => record[4] === 'flood').length;
    await eventually(() => got() >= wanted || isOver(agent), 'what was not read');
    if (!isOver(agent)) return got();
  }
  throw new Error('none of them has lived');
}

process.on('disconnect', () => process.exit());
process.on('message', async ({ read: wanted }) => process.send({ read: await read(wanted) }));
while (deaf.length < count) {
  const some = await Promise.allSettled(Array.from({ length: Math.min(AT_ONCE, count - deaf.length) }, begin));
  deaf.push(...some.filter(({ status }) => status === 'fulfilled').map(({ value }) => value));
}
process.send({ ready: deaf.length });
