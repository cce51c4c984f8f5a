SwaggerUIBundle({
  url: "/api/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  filter: true,
  persistAuthorization: false,
  validatorUrl: null,
});
