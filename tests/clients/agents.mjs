// The Agents SDK: `node agents.mjs BASE_URL`, one JSON object on the last line. The server's replies are test_npm.py's.
import { Agent, OpenAIResponsesModel, run, setTracingDisabled, tool } from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";

setTracingDisabled(true);
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const model = new OpenAIResponsesModel(client, "gpt-oss");

const heard = [];
const getWeather = tool({
  name: "get_weather",
  description: "The weather at a place.",
  parameters: z.object({ location: z.string() }),
  execute: async ({ location }) => { heard.push(location); return `sunny in ${location}`; },
});
const helper = new Agent({ name: "helper", instructions: "Help.", model, tools: [getWeather] });
const called = await run(helper, "Weather in Oslo?");

const streamed = await run(helper, "Weather in Rome?", { stream: true });
let text = "";
for await (const event of streamed) {
  if (event.type === "raw_model_stream_event" && event.data.type === "output_text_delta") text += event.data.delta;
}
await streamed.completed;

const spanish = new Agent({ name: "spanish", instructions: "Speak Spanish.", model });
const first = new Agent({ name: "first", instructions: "Hand over.", model, handoffs: [spanish] });
const handed = await run(first, "hola");

const structured = new Agent({ name: "structured", model, outputType: z.object({ name: z.string() }) });
const person = await run(structured, "Who?");

console.log(JSON.stringify({
  called: called.finalOutput,
  heard,
  streamed: [text, streamed.finalOutput],
  handed: [handed.finalOutput, handed.lastAgent.name],
  person: person.finalOutput,
}));
