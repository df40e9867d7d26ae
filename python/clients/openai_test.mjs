// The openai package for JavaScript against a running `bise serve` of the tiny model:
//   BISE_URL=http://127.0.0.1:PORT/v1 node --test openai_test.mjs      in the folder that has node_modules
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

const require = createRequire(process.cwd() + '/');
const { OpenAI } = require('openai');

const client = new OpenAI({ baseURL: process.env.BISE_URL, apiKey: 'none', maxRetries: 0 });
const messages = [{ role: 'user', content: 'hi' }];
const tool = {
  type: 'function',
  function: {
    name: 'look_up', strict: true,
    parameters: { type: 'object', properties: { word: { enum: ['wind', 'sea'] } }, required: ['word'], additionalProperties: false },
  },
};

test('models are listed', async () => {
  const list = await client.models.list();
  assert.deepEqual(list.data.map((m) => m.id), ['tiny']);
});

test('a stream adds up to the answer', async () => {
  const asked = { model: 'tiny', messages, max_tokens: 20, seed: 2 };
  const whole = await client.chat.completions.create(asked);
  let text = '', usage = null;
  const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

test('the stream helper gathers a message', async () => {
  const runner = client.chat.completions.stream({ model: 'tiny', messages, max_tokens: 10, seed: 4 });
  const done = await runner.finalChatCompletion();
  assert.equal(done.choices[0].message.role, 'assistant');
  assert.equal(done.choices[0].finish_reason, 'length');
});

test('the stream helper gathers a forced call', async (t) => {
  const list = await client.models.list();
  if (!list.data[0].meta.structured_output) return t.skip('structured output is not in this build');
  const runner = client.chat.completions.stream({
    model: 'tiny', messages, tools: [tool], tool_choice: 'required', parallel_tool_calls: false, max_tokens: 120, seed: 3,
    logit_bias: { 34: -100 },
  });
  const done = await runner.finalChatCompletion();
  assert.equal(done.choices[0].finish_reason, 'tool_calls');
  const call = done.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, 'look_up');
  assert.ok(['wind', 'sea'].includes(JSON.parse(call.function.arguments).word));
});

test('a stream that is given up ends the request', async () => {
  const stream = await client.chat.completions.create({ model: 'tiny', messages, max_tokens: 1500, stream: true });
  for await (const _ of stream) break;
  stream.controller.abort();
  const health = new URL('/health', process.env.BISE_URL);
  for (let i = 0; ; i++) {
    if ((await (await fetch(health)).json()).running === 0) break;
    assert.ok(i < 500);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

test('errors have their class, parameter and code', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'tiny', messages, temperature: 9 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature' && error.code === 'invalid_value');
  await assert.rejects(client.chat.completions.create({ model: 'other', messages }), OpenAI.NotFoundError);
});
