// An OpenID provider whose clients are jobs: what a CI system signs for them are JSON Web Tokens for the audience in the arguments.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [audience, secret] = process.argv.slice(2);
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: "job-1",
        client_secret: secret,
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
      },
    ],
    cookies: { keys: [secret] },
    extraTokenClaims: () => ({ repository: "acme/widgets" }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: () => ({ scope: "", accessTokenFormat: "jwt", accessTokenTTL: 300 }),
      },
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
