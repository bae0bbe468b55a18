// The openai package: `node openai.mjs BASE_URL`, one JSON object on the last line. The server's replies are test_npm.py's.
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = "gpt-oss";

const plain = await client.responses.create({ model, input: "hi" });

const stream = client.responses.stream({ model, input: "hi" });
const events = [];
for await (const event of stream) events.push(event.type);
const streamed = (await stream.finalResponse()).output_text;

const tools = [{
  type: "function", name: "get_weather", description: "The weather at a place.", strict: true,
  parameters: {
    type: "object", properties: { location: { type: "string" } }, required: ["location"], additionalProperties: false,
  },
}];
const asked = await client.responses.create({ model, input: "Weather in Oslo?", tools });
const call = asked.output.find((item) => item.type === "function_call");
const told = await client.responses.create({
  model, tools, previous_response_id: asked.id,
  input: [{ type: "function_call_output", call_id: call.call_id, output: "sunny" }],
});

const format = zodTextFormat(z.object({ name: z.string() }), "person");
const parsed = await client.responses.parse({ model, input: "Who?", text: { format } });

const stored = await client.responses.retrieve(plain.id);
const items = [];
for await (const item of client.responses.inputItems.list(plain.id)) items.push(item.content[0].text);
await client.responses.delete(plain.id);
const gone = await client.responses.retrieve(plain.id).catch((error) => error.status);
const wrong = await client.responses.create({ model, input: "hi", temperature: 9 }).catch((error) => error);

const chat = client.chat.completions.stream({ model, messages: [{ role: "user", content: "hi" }] });

console.log(JSON.stringify({
  plain: plain.output_text,
  events: [events[0], events.at(-1)],
  streamed,
  call: JSON.parse(call.arguments),
  told: told.output_text,
  parsed: parsed.output_parsed,
  stored: stored.output_text,
  items,
  gone,
  wrong: [wrong.constructor.name, wrong.status, wrong.param],
  chat: await chat.finalContent(),
}));
