// The AI SDK with both of its providers: `node ai_sdk.mjs BASE_URL`, one JSON object on the last line. The server's
// replies are test_npm.py's, the same for each provider.
import { createOpenResponses } from "@ai-sdk/open-responses";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = process.argv[2];
const providers = {
  openai: createOpenAI({ baseURL, apiKey: "none" }).responses("gpt-oss"),
  openResponses: createOpenResponses({ name: "local", url: `${baseURL}/responses` })("gpt-oss"),
};
const tools = {
  get_weather: tool({
    description: "The weather at a place.",
    inputSchema: z.object({ location: z.string() }),
    execute: async ({ location }) => `sunny in ${location}`,
  }),
};

const results = {};
for (const [name, model] of Object.entries(providers)) {
  const plain = await generateText({ model, prompt: "hi", maxRetries: 0 });
  const stream = streamText({ model, prompt: "hi", maxRetries: 0 });
  let text = "";
  for await (const delta of stream.textStream) text += delta;
  const called = await generateText({
    model, prompt: "Weather in Oslo?", tools, stopWhen: stepCountIs(3), maxRetries: 0,
  });
  const person = await generateText({
    model, prompt: "Who?", output: Output.object({ schema: z.object({ name: z.string() }) }), maxRetries: 0,
  });
  results[name] = {
    plain: plain.text,
    tokens: plain.usage.totalTokens > 0,
    streamed: text,
    reasoning: await stream.reasoningText ?? null,
    called: [called.steps[0].toolResults[0].output, called.text],
    person: person.output,
  };
}
console.log(JSON.stringify(results));
